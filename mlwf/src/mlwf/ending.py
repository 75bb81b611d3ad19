"""How a program that makes something ends early (Ctrl-C, SIGTERM, a lost terminal, a batch system): tidied up, with a word and a status."""

import contextlib
import json
import os
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import NoReturn, Self

from rich.console import Console

from mlwf.i18n import _

# Sent a while before SIGKILL. Grid Engine: SIGUSR2 with -notify, SIGUSR1 at s_rt, SIGXCPU at s_cpu; Slurm: what --signal says.
WARNINGS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)
SOON = 0.01
ENDS = (signal.SIGTERM, signal.SIGHUP, *WARNINGS)


class Terminated(BaseException):
    """One of `ENDS`, as an exception, so that everything is tidied up on the way out."""

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__(number)
        self.number = number

    def __str__(self) -> str:
        """The last words: a job's output is where its user looks for why it ended."""
        if self.number not in WARNINGS:
            return _("Terminated; nothing was kept.")
        return _(
            "Ended by {signal}, which batch systems send when a job was deleted or its time is over; nothing was kept: ask for more "
            "time, or submit it again."
        ).format(signal=signal.Signals(self.number).name)


def raise_on_terminate() -> None:
    """From now on each of `ENDS` raises `Terminated`, once, and Ctrl-C KeyboardInterrupt, none of them while it is `Held`.

    What a destructor could not let out comes again a moment later.
    """
    catch((*ENDS, signal.SIGINT), _came)
    if not isinstance(sys.unraisablehook, _Lost):
        sys.unraisablehook = _Lost(sys.unraisablehook)


class _OfThread(threading.local):
    """Python runs the handlers of signals in the main thread, so what that one has set here is what they see."""

    held = lifted = raised = False
    came = 0


_here = _OfThread()


class Held:
    """While it is entered no signal of `raise_on_terminate` raises anything, so that what is begun in it can be ended in it.

    Only where it is `lifted`, while something is waited for, one of them does, once. What else came raises at the end.
    """

    def __enter__(self) -> Self:
        _here.held = True
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        _here.held = False
        if isinstance(error, Terminated | KeyboardInterrupt):
            _here.came = 0  # it ends by the first one already
        _raise_what_came()

    @contextlib.contextmanager
    def lifted(self) -> Iterator[None]:
        """Within it signals raise, one that has come already at once."""
        try:
            _here.lifted, _here.raised = True, False
            _raise_what_came()
            yield
        finally:
            _here.lifted = False


class _Lost:
    """Told of exceptions that Python must drop, since they were raised between two lines of the program, in a destructor: no other signal
    would be heeded afterwards.
    """

    def __init__(self, usual: Callable[["sys.UnraisableHookArgs"], object]) -> None:
        self._usual = usual

    def __call__(self, lost: "sys.UnraisableHookArgs") -> None:
        ended = lost.exc_value
        if not isinstance(ended, Terminated | KeyboardInterrupt):
            self._usual(lost)
            return
        number = ended.number if isinstance(ended, Terminated) else signal.SIGINT
        _here.raised = False

        def again(_alarm: int, _frame: FrameType | None) -> None:
            _came(number, None)

        signal.signal(signal.SIGALRM, again)
        signal.setitimer(signal.ITIMER_REAL, SOON)


def catch(numbers: Iterable[signal.Signals], handler: Callable[[int, FrameType | None], object]) -> None:
    """Has `handler` called for these signals, without those that somebody has ignored (nohup, `trap ''`); SIGTERM always."""
    for number in numbers:
        if number == signal.SIGTERM or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


def end(status: int, words: str, console: Console, *, as_json: bool = False) -> NoReturn:
    """The program's last words. `as_json`: as one line of JSON, in the form of a failure."""
    # A second Ctrl-C must not bring a traceback on top.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if as_json:
        sys.stderr.write(json.dumps({"state": "failed", "what": words, "why": "", "cure": ""}) + "\n")
    else:
        console.print(words, markup=False)
    sys.exit(status)


def _came(number: int, _frame: FrameType | None) -> None:
    _here.came = _here.came or number
    if not _here.held or (_here.lifted and not _here.raised):
        _raise_what_came()


def _raise_what_came() -> None:
    if not (number := _here.came):
        return
    _here.came, _here.raised = 0, True  # once is enough: what follows tidies up
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    for each in ENDS:
        signal.signal(each, signal.SIG_IGN)
    if number == signal.SIGHUP:
        _leave_terminal()
    raise Terminated(number)


def _leave_terminal() -> None:
    """Has nobody read what is said from now on, where that would fail: the terminal is gone. A file keeps it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        with contextlib.suppress(OSError):  # it was closed
            if stat.S_ISCHR(os.fstat(stream).st_mode):
                os.dup2(nowhere, stream)
