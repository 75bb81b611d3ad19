"""One run of the reconciler in a process of its own, which ends itself with SIGKILL at a chosen moment."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from backend.errors import ServiceError
from backend.runtimes.process import ProcessRuntime
from tests.service.engine.support import Site


@dataclass(frozen=True)
class Crash:
    """Where it ends: at a point that the engine names (``create.write_box.done``), or before or after the n-th call of a function of
    the product or the standard library (``backend.files.boxfiles:replace_file``), which is the middle of a step.
    """

    where: str
    call: int = 1
    after: bool = False

    def __str__(self) -> str:
        return self.where if ":" not in self.where else f"{'after' if self.after else 'before'}-{self.where}-{self.call}"


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass
class Counter:
    crash: Crash
    real: Callable[..., Any]
    calls: list[int] = field(default_factory=list)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls.append(1)
        now = len(self.calls) == self.crash.call
        if now and not self.crash.after:
            die()
        result = self.real(*args, **kwargs)
        if now:
            die()
        return result


def open_site(home: Path, settings: dict[str, Any]) -> Site:
    runtime = ProcessRuntime(servers_dir=home / "servers", envs_dir=settings["envs_dir"], environment=dict(os.environ))
    return Site(home, runtime=runtime, **settings)


def run(home: Path, settings: dict[str, Any], crash: Crash) -> None:
    """A site of plain processes, once."""
    unfit = settings.pop("unfit", False)
    site = open_site(home, settings)
    if unfit:
        site.trial.look_error = ServiceError("version_unfit", version="10.0.0", why="GET / is answered with 500")
    run_once(site, crash)


def run_once(site: Site, crash: Crash) -> NoReturn:
    """Ends with status 3 when the moment never came."""

    def at(point: str) -> None:
        if point == crash.where:
            die()

    if ":" in crash.where:
        module_name, _, path = crash.where.partition(":")
        *outer, name = path.split(".")
        owner: Any = importlib.import_module(module_name)
        for part in outer:
            owner = getattr(owner, part)
        counter = Counter(crash, getattr(owner, name))
        setattr(owner, name, _function(counter))
    site.reconciler(at=at).reconcile_all()
    sys.exit(3)


def _function(counter: Counter) -> Callable[..., Any]:
    """A function rather than an object, so that it also stands for a method."""

    def counted(*args: Any, **kwargs: Any) -> Any:
        return counter(*args, **kwargs)

    return counted
