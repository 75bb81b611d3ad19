"""Files of which many nodes know through a file server (NFS, Lustre): it tells some things late, and its answers can be lost."""

import contextlib
import os
from pathlib import Path


def state_of(path: Path) -> os.stat_result:
    """What a file or folder is now, on every node. NFS goes on for a minute with what it knows, also with that something is missing in a
    folder; whoever opens it asks the file server. Raises OSError.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


def look_anew(folder: Path) -> None:
    """Has this node find what others put there since it last looked. A folder that is not there is no error."""
    with contextlib.suppress(OSError):
        state_of(folder)


def rename(path: Path, target: Path) -> None:
    """Renames a file or folder, in the place of what `Path.rename` replaces. Raises OSError.

    A file server whose answer was lost is asked again, and refuses what it has done (there is no `path` any more): what is there then
    decides.
    """
    moved = path.lstat()
    try:
        path.rename(target)
    except OSError:
        if not _is(target, moved):
            raise


def link(path: str | Path, target: str | Path) -> None:
    """Gives a file one more name, with the same care: a name that was given is refused as taken. Raises OSError."""
    try:
        os.link(path, target)
    except FileExistsError:
        if not _is(Path(target), os.lstat(path)):
            raise


def _is(path: Path, wanted: os.stat_result) -> bool:
    look_anew(path.parent)
    try:
        found = path.lstat()
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino)
