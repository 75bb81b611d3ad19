"""The steps of a build: their names, how long each took, and whom to tell."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from mlwf.i18n import _


def words(name: str) -> str:
    """What a step is called in the reader's language."""
    return {
        "look-up": _("Looking up the base image"),
        "package": _("Reading the model package"),
        "base": _("Base image"),
        "base-pack": _("Packing the base image"),
        "python": _("Python"),
        "lock": _("Resolving the packages"),
        "environment": _("Installing the packages"),
        "pack": _("Packing the image"),
        "proof": _("Testing the model in the image"),
    }[name]


class Reporter(Protocol):
    """Told how it goes. `size` tells the bytes so far; `total` is what they will be at most, None where nobody knows.

    A step may begin a second time, when its bytes are known, and when another one that came in between has ended. `expects`: its total
    became known, or more, while it runs. `waits`: another job makes what this one needs, and will be waited for. `warns`: of what the
    user may want to do something about.
    """

    def begins(self, name: str, size: Callable[[], int] | None, total: int | None) -> None: ...

    def expects(self, name: str, total: int) -> None: ...

    def ends(self, name: str, seconds: float) -> None: ...

    def waits(self) -> None: ...

    def warns(self, text: str) -> None: ...


class Meter:
    """Bytes that arrive in a step, told from any thread; the reporter hears how many there will be when that is known."""

    def __init__(self, begins: Callable[[Callable[[], int], int | None], None], expects: Callable[[int], None]) -> None:
        self._begins = begins
        self.expects = expects
        self._lock = threading.Lock()
        self._count = 0

    def begins(self, total: int | None) -> None:
        self._begins(lambda: self._count, total)

    def watches(self, size: Callable[[], int], total: int | None) -> None:
        """`size` tells from now on how many bytes there are."""
        self._begins(size, total)

    def arrived(self, count: int) -> None:
        with self._lock:
            self._count += count


class Steps:
    """Runs steps, measures them and tells the reporter."""

    def __init__(self, report: Reporter) -> None:
        self._report = report
        self.seconds: dict[str, float] = {}
        self._within: list[Callable[[], None]] = []

    @contextlib.contextmanager
    def step(self, name: str, *, grows: Path | None = None, total: int | None = None) -> Iterator[Meter]:
        """`grows`: the file whose size tells the progress towards `total` bytes. The time of a step within it is not its own."""

        def begins() -> None:
            self._report.begins(name, (lambda: _size(grows)) if grows else None, total)

        begins()
        started, counted = time.monotonic(), sum(self.seconds.values())
        self._within.append(begins)
        yield Meter(lambda size, total: self._report.begins(name, size, total), lambda total: self._report.expects(name, total))
        self._within.pop()
        others = sum(self.seconds.values()) - counted
        self.seconds[name] = round(time.monotonic() - started - others, 3)
        self._report.ends(name, self.seconds[name])
        if self._within:
            self._within[-1]()

    def waits(self) -> None:
        """Another job is at it."""
        self._report.waits()

    def warns(self, text: str) -> None:
        self._report.warns(text)


def _size(file: Path | None) -> int:
    try:
        return file.stat().st_size if file else 0
    except FileNotFoundError:
        return 0
