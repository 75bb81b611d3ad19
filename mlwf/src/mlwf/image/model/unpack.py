"""A model package as files: unpacked or copied as if an enemy had made it, into a new folder, and nowhere else.

Folders and regular files are all that is made. No link, owner, time or mode of the archive is taken over.
"""

import contextlib
import functools
import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from isal import igzip

from mlwf.errors import MlwfError
from mlwf.i18n import _
from mlwf.transfer.paths import UnsafePathError, check_path
from mlwf.transfer.tar_stream import CHUNK, DAMAGE, Counted, Joined, TarStream, entries, exactly, is_file
from mlwf.transfer.workspace import DIRECTORY_MODE, FILE_MODE, check_space

GZIP = b"\x1f\x8b"
KEPT_FREE = 64 << 20


@dataclass(frozen=True)
class Limits:
    """What a package may become: bytes and number of entries; and past `bomb_from` bytes, at most `ratio` times what was packed."""

    size: int = 1 << 40
    entries: int = 200_000
    ratio: int = 400
    bomb_from: int = 4 << 30


DEFAULT_LIMITS = Limits()


class BadPackageError(MlwfError):
    """The package is damaged, or holds what a model package must not."""

    def __init__(self, why: str) -> None:
        super().__init__(_("The model package cannot be unpacked"), why, _("Nothing of it was kept. Make it with mlwf_export_model."))


def unpack(archive: BinaryIO, into: Path, *, limits: Limits = DEFAULT_LIMITS) -> None:
    """Unpacks a tar archive, packed by gzip or not, into the new folder `into`. Raises BadPackageError, MlwfError (disk) or OSError.

    `archive` is read once from its start to its end and needs no `seek`. On a failure `into` is left for the caller to remove.
    """
    packed = Counted(archive)
    start = packed.read(2)
    whole = Joined(start, packed)
    plain = igzip.IGzipFile(fileobj=whole, mode="rb") if start == GZIP else whole  # type: ignore[no-untyped-call]
    target = _Target(into, limits, lambda: packed.count)
    try:
        stream = TarStream(plain)
        for member in entries(stream):
            _take(member, stream, target)
        while archive.read(CHUNK):
            pass  # whoever counts or sums up the archive sees all of it
    except UnsafePathError as error:
        raise BadPackageError(f"{error.what}: {error.why}") from error
    except DAMAGE as error:
        raise BadPackageError(
            _("it is damaged, or not a .tar.gz ({detail})").format(detail=str(error)[:120] or type(error).__name__)
        ) from error


def copy_folder(source: Path, into: Path, *, on_bytes: Callable[[int], object] = lambda _count: None) -> None:
    """Copies a package's folder into the new folder `into`, by the same rules. Raises BadPackageError, MlwfError (disk) or OSError."""
    target = _Target(into, DEFAULT_LIMITS, None)
    top = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _copy_below(top, "", target, on_bytes)
    except UnsafePathError as error:
        raise BadPackageError(f"{error.what}: {error.why}") from error
    finally:
        os.close(top)


def _copy_below(folder: int, above: str, target: "_Target", on_bytes: Callable[[int], object]) -> None:
    """Not by os.fwalk, which passes over a folder that it cannot read, and names none in its errors."""
    with _reading(above):
        names = sorted(os.listdir(folder))
    for name in names:
        path = f"{above}/{name}" if above else name
        with _reading(path):
            kind = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
            if not stat.S_ISDIR(kind) and not stat.S_ISREG(kind):
                raise BadPackageError(_("{path} is a link, a device or another special file").format(path=repr(path)))
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=folder)
        try:
            if stat.S_ISDIR(kind):
                target.folder(path)
                _copy_below(descriptor, path, target, on_bytes)
            else:
                size = os.fstat(descriptor).st_size
                target.file(path, size, _content(descriptor, size, path, on_bytes))
        finally:
            os.close(descriptor)


def _content(descriptor: int, size: int, path: str, on_bytes: Callable[[int], object]) -> Iterator[bytes]:
    with _reading(path):
        for chunk in exactly(functools.partial(os.read, descriptor), size):
            on_bytes(len(chunk))
            yield chunk


@contextlib.contextmanager
def _reading(path: str) -> Iterator[None]:
    """Around what reads the package's own folder: an error of that is not one of where it is copied to. Raises MlwfError."""
    try:
        yield
    except (OSError, EOFError) as error:
        raise MlwfError(
            _("{file} of the model package cannot be read").format(file=path or "."),
            getattr(error, "strerror", "") or str(error),
            _("Check the permissions of the file and of the folders above it."),
        ) from error


def _take(member: tarfile.TarInfo, stream: TarStream, target: "_Target") -> None:
    name = member.name.rstrip("/")
    while name.startswith("./"):
        name = name[2:].lstrip("/")
    if member.isdir():
        if name not in {"", "."}:
            target.folder(name)
        return
    if not is_file(member):
        raise BadPackageError(_("{path} is a link, a device or another special file").format(path=repr(member.name)))
    if member.mode & (stat.S_ISUID | stat.S_ISGID):
        raise BadPackageError(_("{path} would run with another user's rights (setuid)").format(path=repr(member.name)))
    if member.size < 0:
        raise tarfile.ReadError("an entry has a negative size")
    target.file(name, member.size, exactly(stream.content, member.size))


def _write_all(descriptor: int, chunk: bytes) -> None:
    """Some file systems and limits take a part of it, and say why at the next write only."""
    left = memoryview(chunk)
    while left:
        left = left[os.write(descriptor, left) :]


@contextlib.contextmanager
def _alone(path: str) -> Iterator[None]:
    """Around what makes it. Raises BadPackageError where the file system takes another of the package's names for the same, as one without
    case does.
    """
    try:
        yield
    except FileExistsError as error:
        raise _twice(path) from error


def _twice(path: str) -> BadPackageError:
    return BadPackageError(_("it has {path} twice, or beside a name that is the same on this file system").format(path=repr(path)))


class _Target:
    """Makes folders and files below `root`, which is new. `packed`: tells how many packed bytes have been read, if any were."""

    def __init__(self, root: Path, limits: Limits, packed: Callable[[], int] | None) -> None:
        root.mkdir(DIRECTORY_MODE)
        root.chmod(DIRECTORY_MODE)
        self._root = root
        self._limits = limits
        self._packed = packed
        self._size = 0
        self._known: dict[str, bool] = {}  # each name, and whether it is a folder's

    def folder(self, path: str) -> None:
        check_path(path)
        if path.count("/") > 64:
            raise BadPackageError(_("its folders are nested too deeply"))
        parts = path.split("/")
        for depth in range(1, len(parts) + 1):
            self._folder("/".join(parts[:depth]))

    def _folder(self, path: str) -> None:
        if self._claim(path, is_folder=True):
            made = self._root / path
            with _alone(path):
                made.mkdir(DIRECTORY_MODE)
            made.chmod(DIRECTORY_MODE)

    def file(self, path: str, size: int, chunks: Iterator[bytes]) -> None:
        check_path(path)
        if "/" in path:
            self.folder(path.rpartition("/")[0])
        self._claim(path, is_folder=False)
        self._size += size
        self._check_size(size)
        with _alone(path):
            descriptor = os.open(self._root / path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            os.fchmod(descriptor, FILE_MODE)
            for chunk in chunks:
                _write_all(descriptor, chunk)
                self._check_ratio(file.tell() - size)

    def _claim(self, path: str, *, is_folder: bool) -> bool:
        """Whether the name is new. Raises BadPackageError when it is there as something else."""
        if path in self._known:
            if not (is_folder and self._known[path]):
                raise _twice(path)
            return False
        if len(self._known) >= self._limits.entries:
            raise BadPackageError(_("it has more than {count} files").format(count=self._limits.entries))
        self._known[path] = is_folder
        return True

    def _check_size(self, coming: int) -> None:
        if self._size > self._limits.size:
            raise BadPackageError(_("it would become larger than {size} GB").format(size=self._limits.size >> 30))
        check_space(self._root, coming + KEPT_FREE, _("Free some, or choose another place with --output-dir."))

    def _check_ratio(self, behind: int) -> None:
        """`behind`: how much (negative) of what is counted already has not been written yet."""
        written = self._size + behind
        if self._packed and written > self._limits.bomb_from and written > self._limits.ratio * self._packed():
            raise BadPackageError(_("it unpacks to {times} times its size, like a zip bomb").format(times=self._limits.ratio))
