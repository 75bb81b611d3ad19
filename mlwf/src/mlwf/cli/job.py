"""`mlwf job`: what the forms of Open OnDemand, and the console where there is none, run as the user."""

import contextlib
import signal
from dataclasses import replace
from pathlib import Path

import click

from mlwf.cli.support import stacktrace_option
from mlwf.client import Client
from mlwf.ending import Terminated, raise_on_terminate
from mlwf.i18n import _
from mlwf.job.progress import Progress
from mlwf.job.request import read_request
from mlwf.job.tasks import run
from mlwf.report import stderr
from mlwf.settings import environment


@click.command(
    hidden=True,  # forms run it, and nobody else has to
    help=_(
        """Do what a request file asks for: hold a server, export a model, create an image. Forms write such files.

    \b
    Example:
      mlwf job request.json --progress progress.json
    """
    ),
)
@click.argument("request_file", metavar="REQUEST", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--progress",
    "progress_file",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help=_("Where to write its progress, as JSON."),
)
@click.option("--note", default="", help=_("What others see beside the lease, such as the job's number."))
@stacktrace_option
def job(*, request_file: Path, progress_file: Path | None, note: str) -> int:
    raise_on_terminate()
    request = read_request(request_file)
    if note:
        request = replace(request, note=note)
    try:
        with Progress(progress_file, request.task, warn=_say) as progress:
            run(request, environ=environment(), open_client=Client.from_environment, progress=progress, warn=_say)
    except Terminated as ended:
        _say(str(ended))
        return 128 + signal.SIGTERM
    return 0


def _say(text: str) -> None:
    # A job's own output lies in the user's home, which may be full while the result goes elsewhere: no reason to end.
    with contextlib.suppress(OSError):
        stderr().print(text, markup=False)
