"""The MLflow versions that servers can have: one environment per version, made by ``tracking_server/install``."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from backend.atomic import replace_file
from backend.errors import ServiceError
from backend.settings import Settings

IMAGES_FILE: Final = "images.json"
_FOLDER: Final = re.compile(r"mlflow-(\d+(?:\.\d+)*\S*)")


def installed(settings: Settings) -> dict[str, str]:
    """Version to schema revision of all that servers can run, newest first: every whole environment in ``envs_dir`` (with Python and
    ``version.json``); in containers, the images that the reconciler last saw.
    """
    if settings.runtime == "docker":
        return _sorted(_published(settings))
    found: dict[str, str] = {}
    if settings.envs_dir.is_dir():
        for folder in settings.envs_dir.iterdir():
            match = _FOLDER.fullmatch(folder.name)
            about = _about(folder / "version.json") if match else None
            if match and about and about[0] == match[1] and os.access(folder / "bin" / "python", os.X_OK):
                found[about[0]] = about[1]
    return _sorted(found)


def publish(settings: Settings, images: Mapping[str, str]) -> None:
    """Tell the processes that must not reach the daemon which versions its images have. Written where it is news."""
    if _published(settings) != dict(images) or not is_published(settings):
        replace_file(settings.run_dir / IMAGES_FILE, json.dumps(images).encode())


def is_published(settings: Settings) -> bool:
    """Whether the reconciler has looked for images, ever."""
    return (settings.run_dir / IMAGES_FILE).exists()


def offered(settings: Settings) -> list[str]:
    """The versions on offer that are installed, the default one first."""
    return _on_offer(settings, installed(settings))


def schema_revision(settings: Settings, version: str | None) -> tuple[str, str]:
    """The version asked for (None: the default) and its schema revision. Error: ``version_missing``."""
    there = installed(settings)
    on_offer = _on_offer(settings, there)
    chosen = version or next(iter(on_offer), None)
    if chosen is None or chosen not in on_offer:
        raise ServiceError("version_missing", version=chosen or "")
    return chosen, there[chosen]


def _on_offer(settings: Settings, there: Mapping[str, str]) -> list[str]:
    return [version for version in settings.mlflow_versions if version in there] if settings.mlflow_versions else list(there)


def _published(settings: Settings) -> dict[str, str]:
    try:
        content: dict[str, str] = json.loads((settings.run_dir / IMAGES_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return content


def _sorted(found: Mapping[str, str]) -> dict[str, str]:
    return dict(sorted(found.items(), key=lambda item: _order(item[0]), reverse=True))


def is_older(version: str, than: str) -> bool:
    """Whether one version comes before another."""
    return _order(version) < _order(than)


def _about(file: Path) -> tuple[str, str] | None:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return str(content["mlflow_version"]), str(content["schema_revision"])
    except (FileNotFoundError, NotADirectoryError, PermissionError, ValueError, KeyError, TypeError):
        return None  # an installation that is not finished, is not for the service, or was removed meanwhile is not on offer


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))
