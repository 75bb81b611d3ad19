"""How messages, progress and failures reach a person: rich on a terminal, plain lines elsewhere."""

import json
import sys
import traceback
import unicodedata

from rich.console import Console
from rich.markup import escape

from mlwf.errors import MlwfError
from mlwf.i18n import _, translate_click

translate_click()


def stderr() -> Console:
    return Console(stderr=True, highlight=False, soft_wrap=True)


def print_anything() -> None:
    """From now on a narrow locale shows ? for what it has no sign for, rather than a traceback: of a help page too."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # a program's own streams are text


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
    """What is said of an error that nobody foresaw."""
    return _("This is a fault of the tool ({kind}). Run it again with --stacktrace and send the output to the admins.").format(
        kind=type(error).__name__
    )
