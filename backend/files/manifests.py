"""A folder of copies says in its manifest what is in it, with sizes and sha256: whatever it is used for is checked by that first."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from backend.atomic import replace_file
from backend.errors import ServiceError
from backend.i18n import Told

MANIFEST: Final = "manifest.json"


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Whole or not there: a folder without is no copy."""
    replace_file(folder / MANIFEST, json.dumps(manifest, indent=2).encode())


def describe_files(folder: Path, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Size and sha256 of each, for a manifest."""
    return {name: {"size": (folder / name).stat().st_size, "sha256": _sha256(folder / name)} for name in names}


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a copy. Error: ``snapshot_damaged``."""
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ServiceError("snapshot_damaged", why="it is missing or incomplete") from None
    except ValueError as error:
        raise ServiceError("snapshot_damaged", why="its manifest cannot be read") from error
    return manifest


def check_files(folder: Path, manifest: dict[str, Any]) -> None:
    """Whether every file is as the manifest says. Error: ``snapshot_damaged``."""
    for name, facts in manifest["files"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != facts["size"] or _sha256(path) != facts["sha256"]:
            raise ServiceError("snapshot_damaged", why=Told("{name} is missing or was changed", name=name))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
