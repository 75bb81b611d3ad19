"""The finished image: the base's squashfs byte for byte, the environment appended to it, and descriptions in front."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from mlwf.image import sif
from mlwf.image.base.converted import Base
from mlwf.image.kit import Kit

CHUNK = 1 << 30


def pack(kit: Kit, base: Base, layer: Path, objects: Sequence[sif.Described], target: Path, *, identity: bytes) -> None:
    """Makes the new file `target`, whose /mlwf is `layer` (a folder of that name). Raises MlwfError."""
    offset = sif.partition_offset(objects)
    with target.open("xb") as file:
        target.chmod(0o600)
        _copy(base, file.fileno(), offset)
    size = kit.squash.append(kit.runner, layer, target, offset=offset)
    with target.open("r+b") as file:
        sif.write_front(file.fileno(), objects, size=size, architecture=base.facts.architecture, identity=identity)


def open_to_readers(folder: str | Path) -> int:
    """Whoever runs the image reads all of it, whatever the umask was here: folders and programs 0755, other files 0644.

    Answers how many bytes the files have.
    """
    total = 0
    _set_mode(folder, os.lstat(folder), 0o755)
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                total += open_to_readers(entry.path)
            elif entry.is_file(follow_symlinks=False):
                status = entry.stat(follow_symlinks=False)
                _set_mode(entry, status, 0o755 if status.st_mode & stat.S_IXUSR else 0o644)
                total += status.st_size
    return total


def _set_mode(path: "str | Path | os.DirEntry[str]", status: os.stat_result, mode: int) -> None:
    if stat.S_IMODE(status.st_mode) != mode:
        Path(path).chmod(mode)


def _copy(base: Base, out: int, offset: int) -> None:
    """The base's squashfs to `offset`; by reference where the file system can."""
    source = os.open(base.file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        done = 0
        while done < base.partition.size:
            count = min(CHUNK, base.partition.size - done)
            copied = _copy_some(source, out, count, base.partition.offset + done, offset + done)
            if not copied:
                raise OSError(f"{base.file} ends early")
            done += copied
    finally:
        os.close(source)


def _copy_some(source: int, out: int, count: int, at: int, to: int) -> int:
    try:
        return os.copy_file_range(source, out, count, at, to)
    except OSError:
        # Two file systems that cannot (an old kernel, some network file systems): through memory.
        return os.pwrite(out, os.pread(source, min(count, 16 << 20), at), to)
