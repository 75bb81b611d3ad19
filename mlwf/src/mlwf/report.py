"""How messages, progress and failures reach a person: rich on a terminal, plain lines elsewhere."""

import codecs
import contextlib
import errno
import json
import os
import sys
import traceback
import unicodedata
from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape

from mlwf.errors import MlwfError, with_cure
from mlwf.i18n import _, translate_click
from mlwf.settings import environment

translate_click()

SIGNS = {"✓": "+", "✗": "x", "·": "-", "→": ">", "↶": "<", "…": "..."}
"""What is printed instead where the locale has no such sign: whether a check is good or failed is told by its mark alone."""


def stderr() -> Console:
    return Console(stderr=True, highlight=False, soft_wrap=True, _environ=terminal_variables())


def terminal_variables() -> Mapping[str, str]:
    """The environment as rich gets it, which prints nothing at all where COLUMNS is 0: a shell without a terminal's size exports that."""
    return {name: value for name, value in environment().items() if name != "COLUMNS" or value.strip("0")}


def print_anything() -> None:
    """From now on nothing that is printed ends in a traceback, a help page neither: where a stream was closed (`>&-`, a daemon's) it is
    read by nobody, and a narrow locale shows other signs for what it has none for.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            _open_to_nowhere(number, name)
    codecs.register_error("mlwf", _other_signs)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="mlwf")  # type: ignore[union-attr]  # a program's own streams are text


def _open_to_nowhere(number: int, name: str) -> None:
    """The next file that is opened would get the number, and be what other programs write their words into: here, and in a program that
    is started.
    """
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != number:
        os.dup2(nowhere, number)
        os.close(nowhere)
    os.set_inheritable(number, True)
    setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8"))


def _other_signs(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)  # noqa: S101  # nothing is read with it
    return "".join(SIGNS.get(each, "?") for each in error.object[error.start : error.end]), error.end


def show_failure(error: BaseException, *, stacktrace: bool, as_json: bool = False) -> int:
    """Prints what, why and the cure (and the traceback where asked for), and answers the exit status. `as_json`: as one line of JSON."""
    if stacktrace:
        sys.stderr.write(printable("".join(traceback.format_exception(error))))
    if isinstance(error, MlwfError):
        text, status = str(error), error.exit_status
        parts = {"what": error.what, "why": error.why, "cure": error.cure}
    else:
        text, status = fault_of(error), 1
        parts = {"what": text, "why": "", "cure": ""}
    if as_json:
        sys.stderr.write(json.dumps({"state": "failed", **parts}) + "\n")
        return status
    stderr().print(f"[bold red]{_('Error')}:[/] {escape(printable(text))}")
    return status


def printable(text: str) -> str:
    """Without what would steer a terminal: a message may repeat what a model, a server or an archive said."""
    return "".join(each for each in text if each in "\n\t" or unicodedata.category(each) != "Cc")


def fault_of(error: BaseException) -> str:
    """What is said of an error that nobody foresaw where it happened."""
    if isinstance(error, MemoryError) or "can't start new thread" in str(error):
        cure = _("Ask for more memory, on Grid Engine with -l h_vmem=…, or raise ulimit -v; for threads also ulimit -u.")
        return with_cure(_("There is too little memory here, or too many threads run"), cure)
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        _print_no_more()
        words = _("What this prints, or a file of it, cannot be written: {why}").format(why=error.strerror)
        return with_cure(words, _("Free some space, or have it print elsewhere."))
    return _("This is a fault of the tool ({kind}). Run it again with --stacktrace and send the output to the admins.").format(
        kind=type(error).__name__
    )


def _print_no_more() -> None:
    """Where stdout has no room Python would say so once more at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
