"""Room on the host: before a server is made, and while it runs. A disk that fills up is told with its cure before it is full."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from backend.errors import ServiceError
from backend.settings import Settings

MIB: Final = 1024**2
GIB: Final = 1024**3
_OWN: Final = ("data", "log")


def check_room(settings: Settings) -> None:
    """Error: ``host_short_of_disk``, where another server would have no room to live."""
    free = free_bytes(settings)
    if free < settings.disk_least:
        raise ServiceError("host_short_of_disk", free=f"{free / GIB:.1f}", needed=f"{settings.disk_least / GIB:.1f}")


def trouble(settings: Settings, directory: Path) -> ServiceError | None:
    """What a server that runs should be told of its disk: ``disk_low``, ``server_too_large``; None where all is well."""
    free = free_bytes(settings)
    if free < settings.disk_low:
        return ServiceError("disk_low", free=free // MIB)
    used = used_bytes(directory)
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
    """Of the server's database and logs. Its folders may be listed by the service, though their files are not its own to read."""
    return sum(_size(path) for name in _OWN if (directory / name).is_dir() for path in (directory / name).iterdir())


def _size(path: Path) -> int:
    """Of a file that may go at any moment."""
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return 0
