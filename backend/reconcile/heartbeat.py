"""The reconciler's sign of life: a small file that it writes at each look, and that the API's health and the metrics read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from backend.atomic import replace_file
from backend.registry.models import now

FILE: Final = "reconciler.json"


@dataclass(frozen=True, kw_only=True)
class Beat:
    """The last sign of life, and how many seconds the last whole look at all servers took (0: none has ended yet)."""

    at: datetime
    seconds: float


def beat(run_dir: Path, seconds: float) -> None:
    """Note that the reconciler lives now."""
    found = {"seen_at": now().isoformat(), "pass_seconds": round(seconds, 6)}
    replace_file(run_dir / FILE, json.dumps(found).encode())


def last(run_dir: Path) -> Beat | None:
    """The last sign of life; None when there never was one."""
    try:
        found = json.loads((run_dir / FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return Beat(at=datetime.fromisoformat(found["seen_at"]), seconds=float(found.get("pass_seconds", 0)))


def seen_at(run_dir: Path) -> datetime | None:
    """When the reconciler last gave a sign of life; None when it never did."""
    found = last(run_dir)
    return None if found is None else found.at
