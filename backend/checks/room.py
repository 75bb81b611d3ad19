"""Room on the host's disks, as `aihub check` looks at it: one bound for every disk that servers need."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from backend.checks.shape import Finding
from backend.files import disk
from backend.i18n import _
from backend.settings import Settings


def places(settings: Settings) -> tuple[Path, ...]:
    """Where the service writes."""
    return settings.state_dir, disk.volume(settings)


def own_disks(settings: Settings) -> Iterator[Finding]:
    """One finding for each disk that the service writes to."""
    for place in {path.stat().st_dev: path for path in places(settings)}.values():
        yield _room(settings, place, _("free space, or move {path}", path=place))


def daemons_disk(settings: Settings, folder: Path) -> Iterator[Finding]:
    """Of the daemon's own folder, where that is on no disk of the service's: a container needs room for its files there, too."""
    try:
        if folder.stat().st_dev in {path.stat().st_dev for path in places(settings)}:
            return
        cure = _("free space (`docker system df` shows what takes it up), or move {path} (data-root in daemon.json)", path=folder)
        yield _room(settings, folder, cure)
    except FileNotFoundError:
        detail = _("the daemon's folder {path} is not on this host, so how much is free for it is not known", path=folder)
        yield Finding(name="disk", state="warning", detail=detail, cure=_("set docker_host to the socket of this host's own daemon"))
    except PermissionError:
        detail = _("only root sees how much is free for {path}", path=folder)
        yield Finding(name="disk", state="warning", detail=detail, cure=_("run this as root"))


def _room(settings: Settings, place: Path, cure: str) -> Finding:
    free = shutil.disk_usage(place).free
    enough = free >= settings.disk_least
    least = f"{settings.disk_least / disk.GIB:.1f}"
    detail = _("{free} GiB free for {path}, {least} wanted (disk_least)", free=f"{free / disk.GIB:.1f}", path=place, least=least)
    return Finding(name="disk", state="ok" if enough else "failure", detail=detail, cure="" if enough else cure)
