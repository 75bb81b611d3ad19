"""The steps of a build: their names, how long each took, and whom to tell."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from mlwf.i18n import _

NAMES = ("package", "base", "python", "lock", "environment", "pack", "proof")


def words(name: str) -> str:
    """What a step is called in the reader's language."""
    return {
        "package": _("Reading the model package"),
        "base": _("Base image"),
        "python": _("Python"),
        "lock": _("Resolving the packages"),
        "environment": _("Installing the packages"),
        "pack": _("Packing the image"),
        "proof": _("Testing the model in the image"),
    }[name]


class Reporter(Protocol):
    """Told how it goes. `size` tells the bytes so far; `total` is what they will be at most, None where nobody knows."""

    def begins(self, name: str, size: Callable[[], int] | None, total: int | None) -> None: ...

    def ends(self, name: str, seconds: float) -> None: ...


class Steps:
    """Runs steps, measures them and tells the reporter."""

    def __init__(self, report: Reporter) -> None:
        self._report = report
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def step(self, name: str, *, grows: Path | None = None, total: int | None = None) -> Iterator[None]:
        """`grows`: the file whose size tells the progress towards `total` bytes."""
        self._report.begins(name, (lambda: _size(grows)) if grows else None, total)
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 3)
        self._report.ends(name, self.seconds[name])


def _size(file: Path | None) -> int:
    try:
        return file.stat().st_size if file else 0
    except FileNotFoundError:
        return 0
