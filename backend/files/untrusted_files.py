"""What the service can tell of files in a folder that is a box's own: code in the box may close it, and put anything in their place."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from backend.atomic import ensure_space
from backend.errors import ServiceError
from backend.i18n import Told

_BLOCK: Final = 512
"""``st_blocks`` counts these, whatever the file system's own are."""


def is_there(path: Path) -> bool | None:
    """Whether it is there; None where that cannot be told, as where its folder was closed."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return None
    return True


def refuse_links(box: Path) -> None:
    """What root's daemon is to mount is a box's directory, or a folder in it, and no link to another. Error: ``keeper_failed``."""
    for folder in (box, *box.iterdir()):
        if folder.is_symlink():
            raise ServiceError("keeper_failed", why=Told("{folder} is a link", folder=folder))


def stored_bytes(path: Path) -> int:
    """What it takes on the disk. One that cannot be seen counts nothing."""
    try:
        return stored_of(path.lstat())
    except OSError:
        return 0


def stored_of(status: os.stat_result) -> int:
    """What a file takes on the disk: it may say that it is larger than any disk."""
    return status.st_blocks * _BLOCK


def ensure_room(folder: Path, files: Sequence[Path], *, why: str) -> int:
    """Room in ``folder`` for a copy of a box's files, and how many bytes they are. Errors: ``disk_full``; ``snapshot_failed`` where it is
    the files' own fault (they cannot be looked at, or what is stored of them would fit); ``FileNotFoundError``.
    """
    try:
        size = sum(path.stat().st_size for path in files)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ServiceError("snapshot_failed", why=f"{error.strerror} ({error.filename})") from error
    stored = sum(map(stored_bytes, files))
    try:
        ensure_space(folder, size, why=why)
    except ServiceError as error:
        ensure_space(folder, stored, why=why)
        why = Told("its files claim to be {size} bytes, of which {stored} are stored", size=size, stored=stored)
        raise ServiceError("snapshot_failed", why=why) from error
    return size


def reopen(path: Path, rights: int) -> None:
    """Its owner, who asks, has these rights on it. What is not there, or is a link, stays so."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISLNK(mode) and mode & rights != rights:
        path.chmod(stat.S_IMODE(mode) | rights)
