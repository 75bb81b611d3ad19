"""What a check of `aihub check` is, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from backend.settings import Settings

State = Literal["ok", "warning", "failure"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line: what was looked at (by a name that scripts know), how it is, and the cure where it is not well."""

    name: str
    state: State
    detail: str
    cure: str = ""


Check = Callable[[Settings], Iterator[Finding]]
