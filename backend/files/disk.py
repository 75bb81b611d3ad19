"""Room on the host: before a server is made, and while it runs. A disk that fills up is told with its cure before it is full."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from backend.errors import ServiceError
from backend.files.untrusted_files import stored_of
from backend.settings import Settings

MIB: Final = 1024**2
GIB: Final = 1024**3
_OWN: Final = ("data", "log", "tmp")
_MOST_FILES: Final = 100_000
"""More are not looked at: a look must not last."""


def check_room(settings: Settings) -> None:
    """Error: ``host_short_of_disk``, where another server would have no room to live."""
    free = free_bytes(settings)
    if free < settings.disk_least:
        raise ServiceError("host_short_of_disk", free=f"{free / GIB:.1f}", needed=f"{settings.disk_least / GIB:.1f}")


def trouble(settings: Settings, directory: Path) -> ServiceError | None:
    """What a server that runs should be told of its disk: ``disk_low``, ``server_too_large``, ``box_ill`` where its folders are not as they
    were made; None where all is well.
    """
    free = free_bytes(settings)
    if free < settings.disk_low:
        return ServiceError("disk_low", free=free // MIB)
    try:
        used = used_bytes(directory)
    except PermissionError:
        return ServiceError("box_ill", why="its folders were closed to the service")
    if settings.server_disk and used > settings.server_disk:
        return ServiceError("server_too_large", used=f"{used / GIB:.1f}", bound=f"{settings.server_disk / GIB:.1f}")
    return None


def free_bytes(settings: Settings) -> int:
    """Free on the servers' disk, for the service's account."""
    return shutil.disk_usage(volume(settings)).free


def volume(settings: Settings) -> Path:
    """A folder on the servers' disk."""
    return settings.servers_dir if settings.servers_dir.exists() else settings.state_dir


def used_bytes(directory: Path) -> int:
    """Of the server's database, spool and logs. Its folders may be listed by the service (else: ``PermissionError``), though their files
    are not its own to read, nor the folders that it made in them.
    """
    return sum(map(_size, islice(_files(directory), _MOST_FILES)))


def _files(directory: Path) -> Iterator[Path]:
    def closed(error: OSError) -> None:
        if isinstance(error, PermissionError) and Path(error.filename).parent == directory:
            raise error

    for name in _OWN:
        for folder, _folders, files in os.walk(directory / name, onerror=closed):
            yield from (Path(folder, file) for file in files)


def _size(path: Path) -> int:
    """Of a file that may go at any moment."""
    try:
        return stored_of(path.lstat())
    except FileNotFoundError:
        return 0
