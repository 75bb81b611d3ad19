"""The progress file of `mlwf job`: one JSON object, replaced by rename, so that a page that polls never reads half of it."""

import contextlib
import datetime as dt
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

from mlwf.errors import MlwfError
from mlwf.i18n import _
from mlwf.report import fault_of

BEAT_SECONDS = 10.0
"""`updated_at` moves at least this often while the job lives. A reader that sees it stand for six of these knows that the job died."""
QUIET_SECONDS = 0.5


class Progress:
    """What a job has done so far. May be told from several threads. Everything in it may be shown: no secret is ever told to it.

    A file that cannot be written ends no job, whose result may lie elsewhere: `warn` is told once, and it is tried again each time.
    """

    def __init__(self, path: Path | None, task: str, *, warn: Callable[[str], None]) -> None:
        self._path = path
        self._warn = warn
        self._warned = False
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._written = 0.0
        self._beats = threading.Thread(target=self._beat, name="progress", daemon=True)
        self._state: dict[str, Any] = {"task": task, "state": "running", "started_at": _now(), "finished_at": None, "steps": []}

    def __enter__(self) -> Self:
        self._write()
        self._beats.start()
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        self._ended.set()
        with self._lock:
            self._state |= {"state": "failed" if error else "succeeded", "finished_at": _now()}
            if error is not None:
                self._state["error"] = _problem(error)
        self._write()

    @contextlib.contextmanager
    def step(self, name: str, label: str) -> Iterator[None]:
        """One step, from now until the block ends. `label` is for people."""
        step: dict[str, Any] = {"name": name, "label": label, "state": "running", "started_at": _now(), "finished_at": None, "detail": None}
        with self._lock:
            self._state["steps"].append(step)
        self._write()
        try:
            yield
        except BaseException:
            self._finish(step, "failed")
            raise
        self._finish(step, "succeeded")

    def detail(self, text: str) -> None:
        """A word on the step under way."""
        with self._lock:
            self._state["steps"][-1]["detail"] = text
        self._write(quiet=True)

    def tell(self, **facts: Any) -> None:
        """Facts beside the steps: `server`, `result`, `message`, `bytes`, `total` …"""
        with self._lock:
            self._state |= facts
        self._write()

    def arrived(self, count: int) -> None:
        """So many bytes more."""
        with self._lock:
            self._state["bytes"] = self._state.get("bytes", 0) + count
        self._write(quiet=True)

    def _finish(self, step: dict[str, Any], state: str) -> None:
        with self._lock:
            step |= {"state": state, "finished_at": _now()}
        self._write()

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            self._write()

    def _write(self, *, quiet: bool = False) -> None:
        if self._path is None or (quiet and time.monotonic() - self._written < QUIET_SECONDS):
            return
        with self._lock:
            self._written = time.monotonic()
            try:
                self._replace(self._path)
            except OSError as error:
                if not self._warned:
                    self._warned = True
                    words = _(
                        "The job's progress cannot be written to {path} ({why}): the job goes on; free some space there if it is full."
                    )
                    self._warn(words.format(path=self._path, why=error.strerror))

    def _replace(self, path: Path) -> None:
        part = path.with_name(f".{path.name}.part")
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w", encoding="utf-8") as file:
            json.dump({**self._state, "updated_at": _now()}, file, ensure_ascii=False)
        part.replace(path)


def _problem(error: BaseException) -> dict[str, str]:
    if not isinstance(error, Exception):
        return {"detail": _("It was ended before its time"), "cure": _("Start it again.")}
    if isinstance(error, MlwfError):
        return {"detail": f"{error.what}: {error.why}" if error.why else error.what, "cure": error.cure}
    return {"detail": fault_of(error), "cure": ""}


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
