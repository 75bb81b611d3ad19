"""The reconciler's sign of life: a small file that it writes at each look, and that the API's health reads."""

from __future__ import annotations

import json
import os
from datetime import datetime
from pathlib import Path
from typing import Final

from backend.atomic import replace_file
from backend.registry.models import now

FILE: Final = "reconciler.json"


def beat(run_dir: Path) -> None:
    """Note that the reconciler lives now."""
    replace_file(run_dir / FILE, json.dumps({"seen_at": now().isoformat(), "pid": os.getpid()}).encode())


def seen_at(run_dir: Path) -> datetime | None:
    """When the reconciler last gave a sign of life; None when it never did."""
    try:
        return datetime.fromisoformat(json.loads((run_dir / FILE).read_text(encoding="utf-8"))["seen_at"])
    except FileNotFoundError:
        return None
