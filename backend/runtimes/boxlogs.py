"""What of a box's logs tells why something failed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

WENT_WELL: Final = " INFO request: "
"""In a line of ``mlflow.log`` for a request that MLflow answered (docs/reference/box.md)."""


def telling(lines: Sequence[str]) -> list[str]:
    """All lines but those: they are many, and would leave no room for what went wrong."""
    return [line for line in lines if WENT_WELL not in line]
