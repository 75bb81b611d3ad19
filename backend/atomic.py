"""Files that are whole or not there, and a full disk as a failure of ours."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from backend.errors import ServiceError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_SQLITE_FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)
"""The second is of who opens a database that nobody has open: what its readers share (``-shm``) finds no room, though they only look.
Not ``SQLITE_IOERR_WRITE``, which is also that of a disk that turned read-only.
"""


def replace_file(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Make ``path`` hold ``content``, by rename: a reader sees the old or the new, also after a power cut. Error: ``OSError``."""
    fresh = _fresh(path)
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def place_file(source: Path, target: Path, *, replacing: Callable[[], None] = lambda: None) -> None:
    """Copy a file so that ``target`` is whole or not there, mode 0600. ``replacing`` is called when only the rename is left to do."""
    fresh = _fresh(target)
    try:
        shutil.copyfile(source, fresh)
        fresh.chmod(0o600)
        sync_file(fresh)
        replacing()
        fresh.replace(target)
    finally:
        fresh.unlink(missing_ok=True)
    sync_folder(target.parent)


def is_unfinished(path: Path) -> bool:
    """Whether a ``replace_file`` of that path, killed half-way, left something beside it, or one is under way."""
    return _fresh(path).exists()


def discard_unfinished(path: Path) -> None:
    """Remove what a ``replace_file`` of that path, killed half-way, left beside it."""
    _fresh(path).unlink(missing_ok=True)


def _fresh(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")


def sync_file(path: Path) -> None:
    """Make its content survive a power cut."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make the names in it survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_private(folder: Path) -> None:
    """Make the folder and those above it that are missing, each 0700; there already is fine."""
    if not folder.is_dir():
        make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def remove_tree(folder: Path) -> None:
    """Remove a folder that nobody writes to any more; gone already is fine. Killed half-way, it must be asked for again."""
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        if folder.exists():
            raise


def ensure_space(folder: Path, needed: int, *, why: str) -> None:
    """Refuse with ``disk_full`` where ``needed`` bytes, and a little for the others on that disk, are not free."""
    spare = 16 * 1024 * 1024
    if shutil.disk_usage(folder).free < needed + spare:
        raise ServiceError("disk_full", why=why)


def is_full(error: BaseException | None) -> bool:
    """Whether that is what a disk or quota that is full says, or SQLite on one."""
    return getattr(error, "errno", None) in _FULL or getattr(error, "sqlite_errorcode", None) in _SQLITE_FULL


@contextmanager
def full_disk_is_ours(why: str) -> Iterator[None]:
    """A disk or quota that is full becomes ``disk_full`` with ``why``, said as what was being done; every other error passes."""
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:
        if is_full(error):
            raise ServiceError("disk_full", why=why) from error
        raise
