"""How messages, progress and failures reach a person: rich on a terminal, plain lines elsewhere."""

import json
import sys
import traceback
import unicodedata
from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape

from mlwf.errors import MlwfError, with_cure
from mlwf.i18n import _, translate_click
from mlwf.settings import environment
from mlwf.streams import no_room

translate_click()


def stderr() -> Console:
    """Nothing in a name means a colour to it, or a picture (`:a:`)."""
    return Console(stderr=True, highlight=False, emoji=False, soft_wrap=True, _environ=terminal_variables())


def terminal_variables() -> Mapping[str, str]:
    """The environment as rich gets it, which prints nothing at all where COLUMNS is 0: a shell without a terminal's size exports that."""
    return {name: value for name, value in environment().items() if name != "COLUMNS" or value.strip("0")}


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
        return with_cure(_("There is too little memory here, or too many threads are running"), cure)
    if (unwritten := no_room(error)) is not None:
        return unwritten
    return _("This is a fault of the tool ({kind}). Run it again with --stacktrace and send the output to the admins.").format(
        kind=type(error).__name__
    )
