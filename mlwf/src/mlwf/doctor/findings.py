"""A check, what it finds, and running many of them at once."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from typing import Generic, Literal, TypeVar

from mlwf.errors import MlwfError
from mlwf.i18n import _

T = TypeVar("T")
State = Literal["ok", "note", "failed"]
PATIENCE = 30.0
"""Seconds: what has not answered by then will not."""


@dataclass(frozen=True)
class Finding:
    """`note`: nothing is wrong, but good to know. `cure` says what to do about a failure."""

    check: str
    state: State
    text: str
    cure: str = ""


class Failed(MlwfError):  # noqa: N818  # what a check says, not what broke
    """Raised by a check that found something wrong."""


class Noted(Exception):  # noqa: N818  # as above
    """Raised by a check that does not apply, or found something worth knowing."""


@dataclass(frozen=True)
class Check:
    """`run` answers what is well, or raises Failed, Noted or another MlwfError. `title` is in the reader's language."""

    name: str
    title: str
    run: Callable[[], str]


class Once(Generic[T]):
    """What several checks need: asked by the first that comes, while the others wait. All have the same outcome, a failure, too."""

    def __init__(self, ask: Callable[[], T]) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._outcome: Future[T] = Future()

    def __call__(self) -> T:
        with self._lock:
            if not self._outcome.done():
                try:
                    self._outcome.set_result(self._ask())
                except Exception as error:  # noqa: BLE001  # raised below, and for all who come later
                    self._outcome.set_exception(error)
        return self._outcome.result()


def look(checks: Sequence[Check], *, seconds: float) -> list[Finding]:
    """All findings, in the order of the checks. One that has not ended in time is a failure and is left behind."""
    deadline = time.monotonic() + seconds
    found: dict[str, Finding] = {}
    threads = [threading.Thread(target=_run, args=(check, found), daemon=True, name=f"check-{check.name}") for check in checks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return [found.get(check.name) or _late(check, seconds) for check in checks]


def _run(check: Check, found: dict[str, Finding]) -> None:
    try:
        finding = Finding(check.name, "ok", check.run())
    except Noted as noted:
        finding = Finding(check.name, "note", str(noted))
    except MlwfError as error:
        finding = Finding(check.name, "failed", ": ".join(part for part in (error.what, error.why) if part), error.cure)
    except Exception as error:  # noqa: BLE001  # a check's own fault must not hide what the others found
        finding = Finding(check.name, "failed", f"{type(error).__name__}: {error}", _("This is a fault of the check; tell the admins."))
    found[check.name] = finding


def _late(check: Check, seconds: float) -> Finding:
    cure = _("Try again with --seconds 30.") if seconds < PATIENCE else _("It hangs, or a firewall drops what is sent: ask the admins.")
    return Finding(check.name, "failed", _("no answer within {seconds:.0f} seconds").format(seconds=seconds), cure)


def as_json(findings: Sequence[Finding], titles: Mapping[str, str]) -> list[dict[str, str]]:
    """The findings with their titles, for machines."""
    return [asdict(each) | {"title": titles[each.check]} for each in findings]
