"""`mlwf lease`: vouch for a server while something runs."""

import contextlib
import json
import signal
import subprocess
import threading
from collections.abc import Iterator
from types import FrameType

import click
from rich.text import Text

from mlwf.cli.output import console as _console
from mlwf.cli.output import local_time, print_table, table_of
from mlwf.cli.support import StepPrinter, Target, json_option, stacktrace_option, target_argument
from mlwf.client import Client
from mlwf.ending import WARNINGS, Terminated, catch
from mlwf.errors import WrongUseError
from mlwf.i18n import _
from mlwf.lease import LEAST_SECONDS, MOST_SECONDS, SECONDS, HeldLease, ensure_up
from mlwf.report import stderr


@click.group(
    help=_(
        """Hold a tracking server while a job runs.

    When the last lease of a server is over, the server is stopped or kept, as that lease says. If a job dies without ending its lease,
    that is noticed when the lease runs out.

    \b
    Examples:
      mlwf lease hold gaa50000/wine --at-end stop -- python train.py
      mlwf lease list gaa50000/wine
    """
    )
)
def lease() -> None:
    pass


@lease.command(
    context_settings={"ignore_unknown_options": True},
    help=_(
        """Hold a server while COMMAND runs. It is started first if need be.

    The exit status is COMMAND's. Without COMMAND the lease is held until Ctrl-C or SIGTERM.

    \b
    Examples:
      mlwf lease hold gaa50000/wine --at-end stop -- python train.py
      mlwf lease hold gaa50000/wine --seconds 600 --note "night run"
    """
    ),
)
@target_argument()
@click.option(
    "--at-end",
    type=click.Choice(["keep", "stop"]),
    default="keep",
    show_default=True,
    help=_("What happens to the server when this is its last lease: keep it running or stop it."),
)
@click.option(
    "--seconds",
    type=click.IntRange(LEAST_SECONDS, MOST_SECONDS),
    default=SECONDS,
    show_default=True,
    help=_("How long the lease lasts without renewal; it is renewed every third of that."),
)
@click.option("--note", default="", help=_("What others see beside it, such as the job's number."))
@stacktrace_option
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def hold(*, target: Target, at_end: str, seconds: int, note: str, command: tuple[str, ...]) -> int:
    ends, out = _Ends(), stderr()
    catch((signal.SIGTERM, *WARNINGS), ends)
    held = HeldLease(
        Client.from_environment,
        target.group,
        target.env,
        seconds=seconds,
        at_end=at_end,
        note=note,
        warn=lambda text: out.print(text, markup=False),
    )
    with held, contextlib.suppress(Terminated):
        with ends.waiting(), Client.from_environment() as client, StepPrinter(out) as printer:
            ensure_up(client, target.group, target.env, on_change=printer)
        if command:
            return ends.run(command)
        out.print(_("The lease {id} holds; Ctrl-C ends it.").format(id=held.lease_id), markup=False)
        with ends.waiting():
            threading.Event().wait()
    return 128 + signal.SIGTERM


class _Ends:
    """What the signals do that end a job: they break a wait off, and COMMAND gets them, though they came while it was started."""

    def __init__(self) -> None:
        self._came = 0
        self._waits = False
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        self._came = number
        if self._process:
            self._process.send_signal(number)
        elif self._waits:
            self._waits = False  # once is enough: what follows tidies up
            raise Terminated(number)

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Raises Terminated, at once where one has come already."""
        self._waits = True
        try:
            if self._came:
                raise Terminated(self._came)
            yield
        finally:
            self._waits = False

    def run(self, command: tuple[str, ...]) -> int:
        """Its exit status. Raises WrongUseError where it cannot be started, and Terminated where it need not be."""
        if self._came:
            raise Terminated(self._came)
        try:
            self._process = subprocess.Popen(command)
        except OSError as error:
            what = _("{command} cannot be run: {why}").format(command=command[0], why=error.strerror)
            raise WrongUseError(what, cure=_("Write the command after --.")) from error
        if self._came:
            self._process.send_signal(self._came)
        return _status_of(self._process)


def _status_of(process: "subprocess.Popen[bytes]") -> int:
    while True:
        try:
            status = process.wait()
        except KeyboardInterrupt:  # the terminal told the command too: its end is waited for
            continue
        return status if status >= 0 else 128 - status


@lease.command("list", help=_("List the leases of a server."))
@target_argument()
@json_option
@stacktrace_option
def list_leases(*, target: Target, as_json: bool) -> None:
    with Client.from_environment() as client:
        found = client.server(target.group, target.env).leases
    if as_json:
        click.echo(json.dumps({"leases": [each.raw for each in found]}, indent=2, ensure_ascii=False))
        return
    if not found:
        _console().print(_("This server has no leases."), markup=False)
        return
    table = table_of("ID", _("user"), _("until"), _("at the end"), _("note"))
    for each in found:
        table.add_row(each.id, Text(each.user), local_time(each.until), each.at_end, Text(each.note))
    print_table(table)


@lease.command(help=_("End a lease of yours, such as one that a killed job left."))
@target_argument()
@click.argument("lease_id")
@stacktrace_option
def end(*, target: Target, lease_id: str) -> None:
    with Client.from_environment() as client:
        client.end_lease(target.group, target.env, lease_id)
    _console().print(_("Ended."), markup=False)
