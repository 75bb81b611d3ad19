"""The console's part of the site's file (deploy/site.yml.example), as texts: the settings' table reads them as it reads variables."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import yaml

DEFAULT: Final = Path("/etc/aihub/site.yml")
PART: Final = "console"


class SiteFileError(ValueError):
    """The file cannot be used; the message names it, says why, and what would do."""


def read(path: Path, *, must_exist: bool) -> dict[str, str]:
    """Name to text of the part `console`; empty where there is no file or no such part. Raises SiteFileError."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if must_exist:
            raise SiteFileError(f"{path}: there is no such file; write it, or correct AIHUB_SITE") from None
        return {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SiteFileError(f"{path}: it cannot be read ({getattr(error, 'problem', None) or error}); correct it") from None
    part = content.get(PART) if isinstance(content, dict) else None
    if part is None:
        return {}
    if not isinstance(part, dict):
        raise SiteFileError(f"{path}: the part {PART} must be `name: value` lines; write it so")
    return {str(name): _text(path, name, value) for name, value in part.items() if value is not None}


def _text(path: Path, name: object, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list):
        raise SiteFileError(f"{path}: {PART}: {name} must be one value; write it so")
    return str(value)
