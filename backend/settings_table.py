"""What the settings are, for people: the documentation's table, and the values in force."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

import yaml

from backend import sizes
from backend.domain import SizeClass
from backend.settings import Settings


def rows() -> Iterator[tuple[str, str, str, str]]:
    """The table for people: name, type, default, meaning."""
    types = typing.get_type_hints(Settings)
    for row in fields(Settings):
        default = None if row.default is MISSING else row.default
        shown = str(row.metadata["shown"]) if "shown" in row.metadata else _yaml_word(default)
        yield row.name, _type_word(row, types[row.name]), shown, str(row.metadata["help"])


def markdown_table() -> str:
    """The table of docs/reference/settings.md."""
    lines = ["| setting | type | default | meaning |", "|---|---|---|---|"]
    lines += [f"| `{name}` | {kind} | `{default}` | {about} |" for name, kind, default, about in rows()]
    return "\n".join(lines) + "\n"


def in_force(settings: Settings) -> dict[str, Any]:
    """Every setting's value, plain. A password in the registry's address is left out."""
    found: dict[str, Any] = {}
    for row in fields(Settings):
        value = getattr(settings, row.name)
        if row.name == "sizes":
            value = sizes.plain(value)
        found[row.name] = list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value
    found["database_url"] = re.sub(r"(://[^:/@]*):[^@]*@", r"\1:…@", settings.database_url)
    return found


def _yaml_word(value: object) -> str:
    plain = list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value
    return yaml.safe_dump(plain, default_flow_style=True, width=1000).removesuffix("...\n").strip()


def _type_word(row: Field[Any], kind: Any) -> str:
    options = [each for each in typing.get_args(kind) if each is not type(None)] if type(None) in typing.get_args(kind) else [kind]
    words = {int: "whole number", float: "number", str: "text", bool: "true or false", Path: "path", tuple: "list of texts"}
    word = "table" if options[0] == tuple[SizeClass, ...] else words[typing.get_origin(options[0]) or options[0]]
    if "choices" in row.metadata:
        word = " or ".join(f"`{each}`" for each in row.metadata["choices"])
    return f"{word}, or null" if type(None) in typing.get_args(kind) else word
