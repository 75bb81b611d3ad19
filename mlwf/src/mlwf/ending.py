"""How a program that makes something ends early: by Ctrl-C or SIGTERM, tidied up, with a word and the usual status."""

import signal
import sys
from types import FrameType
from typing import NoReturn

from rich.console import Console


class Terminated(BaseException):
    """SIGTERM, as an exception, so that everything is tidied up on the way out."""


def raise_on_terminate() -> None:
    """From now on SIGTERM raises `Terminated`, once."""
    signal.signal(signal.SIGTERM, _raise)


def end(status: int, words: str, console: Console) -> NoReturn:
    """The program's last words."""
    # A second Ctrl-C must not bring a traceback on top.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    console.print(words, markup=False)
    sys.exit(status)


def _raise(_number: int, _frame: FrameType | None) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: what follows tidies up
    raise Terminated
