"""How a build of an image goes, told on a terminal, in lines of a log, or in JSON lines for machines."""

import contextlib
import json
import threading
from collections.abc import Callable
from typing import Self

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from mlwf.i18n import _
from mlwf.image.steps import words

TELL_SECONDS = 1.0


class TerminalReporter:
    """The step with its bytes and the time left on a terminal, a line for each finished step elsewhere, JSON lines where asked for."""

    def __init__(self, console: Console, *, as_json: bool) -> None:
        self._console = console
        self._json = as_json
        self._progress: _Watching | _Growing | None = None
        self._shown = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop()

    def begins(self, name: str, size: Callable[[], int] | None, total: int | None) -> None:
        self._stop()
        if self._json:
            _line(step=name, state="begins", total=total)
            self._progress = _Growing(name, size, total) if size else None
            self._shown = name
            return
        if not self._console.is_terminal:
            if name != self._shown:  # a step is told again when its size is known
                self._console.print(f"{words(name)} …", markup=False)
            self._shown = name
            return
        columns: list[ProgressColumn] = [SpinnerColumn(), TextColumn("{task.description}")]
        if size:
            columns += [BarColumn(), DownloadColumn()]
        self._progress = _Watching(*columns, _TimeColumn(), console=self._console, transient=True, size=size)
        self._progress.add_task(words(name), total=total)
        self._progress.start()
        self._shown = name

    def expects(self, name: str, total: int) -> None:
        if self._progress and name == self._shown:
            self._progress.expects(total)

    def ends(self, name: str, seconds: float) -> None:
        self._stop()
        if self._json:
            _line(step=name, state="ends", seconds=seconds)
        else:
            self._console.print(_("{step}: {seconds:.1f} s").format(step=words(name), seconds=seconds), markup=False)

    def waits(self) -> None:
        if self._json:
            _line(state="waits")
        else:
            self._console.print(_("Another job is making the same; this one waits for it."), markup=False)

    def warns(self, text: str) -> None:
        if self._json:
            _line(state="warns", text=text)
        else:
            self._console.print(_("Warning: {text}").format(text=text), markup=False)

    def _stop(self) -> None:
        if self._progress:
            self._progress.stop()
            self._progress = None


def _line(**facts: object) -> None:
    click.echo(json.dumps(facts), err=True)


class _Growing:
    """Tells on lines for machines how many bytes there are: every second in which they became other ones, and at the end."""

    def __init__(self, name: str, size: Callable[[], int], total: int | None) -> None:
        self._ended = threading.Event()
        self._total = total
        self._teller = threading.Thread(target=self._tell, args=(name, size), name="bytes", daemon=True)
        self._teller.start()

    def expects(self, total: int) -> None:
        self._total = total

    def _tell(self, name: str, size: Callable[[], int]) -> None:
        told, ended = 0, False
        while not ended:
            ended = self._ended.wait(TELL_SECONDS)
            now = size()
            if now != told:
                with contextlib.suppress(OSError):  # who reads it is gone, or has no room: the image may lie elsewhere
                    _line(step=name, state="grows", bytes=now, total=_at_least(now, self._total))
                told = now

    def stop(self) -> None:
        self._ended.set()
        self._teller.join()


def _at_least(now: int, total: float | None) -> float | None:
    """A guess that turned out too low is none."""
    return None if total is None or total < now else total


class _TimeColumn(ProgressColumn):
    """The time left where the end is known, else the time since the step began."""

    def __init__(self) -> None:
        super().__init__()
        self._left, self._since = TimeRemainingColumn(), TimeElapsedColumn()

    def render(self, task: Task) -> Text:
        return self._since.render(task) if task.total is None else self._left.render(task)


class _Watching(Progress):
    """Asks how many bytes there are whenever it draws."""

    def __init__(self, *columns: ProgressColumn, console: Console, transient: bool, size: Callable[[], int] | None) -> None:
        self._bytes = size
        super().__init__(*columns, console=console, transient=transient, refresh_per_second=4)

    def expects(self, total: int) -> None:
        for task in self.tasks:
            self.update(task.id, total=total)

    def get_renderables(self):  # type: ignore[no-untyped-def]
        if self._bytes:
            now = self._bytes()
            for task in self.tasks:
                self.update(task.id, completed=now)
                task.total = _at_least(now, task.total)
        yield from super().get_renderables()
