"""What the daemon tells of itself (``GET /info``), of Docker and of Podman. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

Bound = Literal["memory", "swap", "cpus", "pids", "seccomp"]
_TOLD: Final[dict[Bound, str]] = {"memory": "MemoryLimit", "swap": "SwapLimit", "cpus": "CpuCfsQuota", "pids": "PidsLimit"}
_NOT_BY_PODMAN: Final[frozenset[Bound]] = frozenset({"swap", "cpus"})
"""With control groups of version 2 Podman looks for files of version 1, and so denies these in any case."""


@dataclass(frozen=True, kw_only=True)
class About:
    """``folder``: where it keeps its own files. ``lacks``: what a container is asked to be bounded by, and would be made without, with a
    warning only. What the daemon does not tell of is not among these.
    """

    rootless: bool
    folder: Path | None
    lacks: tuple[Bound, ...]


def about_in(found: Mapping[str, Any]) -> About:
    """Its answer."""
    options = found.get("SecurityOptions") or ()  # null: none
    in_doubt = _NOT_BY_PODMAN if "BuildahVersion" in found and found.get("CgroupVersion") == "2" else frozenset()
    lacks = [bound for bound, key in _TOLD.items() if found.get(key) is False and bound not in in_doubt]
    if "SecurityOptions" in found and not any(map(_filters, options)):
        lacks.append("seccomp")
    return About(
        rootless=bool(found.get("Rootless")) or "name=rootless" in options,  # Podman's word, Docker's word
        folder=Path(found["DockerRootDir"]) if found.get("DockerRootDir") else None,
        lacks=tuple(lacks),
    )


def _filters(option: str) -> bool:
    name, *rest = option.split(",")
    return name == "name=seccomp" and "profile=unconfined" not in rest
