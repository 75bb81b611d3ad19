"""How a program that makes something ends early: by Ctrl-C, SIGTERM or a lost terminal, tidied up, with a word and the usual status."""

import contextlib
import os
import signal
import stat
import sys
from types import FrameType
from typing import NoReturn

from rich.console import Console

ENDS = (signal.SIGTERM, signal.SIGHUP)


class Terminated(BaseException):
    """SIGTERM or SIGHUP, as an exception, so that everything is tidied up on the way out."""


def raise_on_terminate() -> None:
    """From now on SIGTERM and, where nohup has not said otherwise, SIGHUP raise `Terminated`, once."""
    signal.signal(signal.SIGTERM, _raise)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _raise)


def end(status: int, words: str, console: Console) -> NoReturn:
    """The program's last words."""
    # A second Ctrl-C must not bring a traceback on top.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    console.print(words, markup=False)
    sys.exit(status)


def _raise(came: int, _frame: FrameType | None) -> NoReturn:
    for number in ENDS:
        signal.signal(number, signal.SIG_IGN)  # once is enough: what follows tidies up
    if came == signal.SIGHUP:
        _leave_terminal()
    raise Terminated


def _leave_terminal() -> None:
    """Has nobody read what is said from now on, where that would fail: the terminal is gone. A file keeps it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        with contextlib.suppress(OSError):  # it was closed
            if stat.S_ISCHR(os.fstat(stream).st_mode):
                os.dup2(nowhere, stream)
