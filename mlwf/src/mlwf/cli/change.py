"""`mlwf server upgrade|rollback|resize`: another MLflow, the one from before, and more or less of the host."""

import sys

import click

from mlwf.cli.output import console as _console
from mlwf.cli.support import Target, follow, stacktrace_option, target_argument, wait_option
from mlwf.client import Client
from mlwf.errors import MlwfError, WrongUseError
from mlwf.i18n import _


@click.command(
    help=_(
        """Give a server a newer MLflow. It is tried on a copy of the database first, while the server serves.

    The server is away for a moment when the database is taken over. What was there before is kept for some days, for 'rollback'.

    \b
    Examples:
      mlwf server upgrade gaa50000/wine
      mlwf server upgrade gaa50000/wine --mlflow-version 3.17.2
    """
    )
)
@target_argument()
@click.option(
    "--mlflow-version", metavar="VERSION", help=_("MLflow version; if not given, the first of the newer ones that the service offers.")
)
@wait_option
@stacktrace_option
def upgrade(*, target: Target, mlflow_version: str | None, wait: bool) -> None:
    console = _console()
    with Client.from_environment() as client:
        if mlflow_version is None:
            found = client.server(target.group, target.env)
            if not found.upgrades:
                words = _("{target} has MLflow {version}; no newer one is on offer.")
                console.print(words.format(target=target, version=found.mlflow_version), markup=False)
                return
            mlflow_version = found.upgrades[0]
        if not follow(client, console, client.upgrade(target.group, target.env, mlflow_version), wait=wait):
            return
        previous = client.server(target.group, target.env).previous
        if previous:
            words = _("Until {date} it can go back to MLflow {version} with: mlwf server rollback {target}")
            console.print(words.format(date=previous.until or "-", version=previous.mlflow_version, target=target), markup=False)


@click.command(
    help=_(
        """Undo the last upgrade. MLflow and database are those from before it.

    What was written since is set aside and not served; another 'rollback' brings that back, for some days.

    \b
    Examples:
      mlwf server rollback gaa50000/wine
      mlwf server rollback gaa50000/wine --yes
    """
    )
)
@target_argument()
@click.option("--yes", is_flag=True, help=_("Do not ask."))
@wait_option
@stacktrace_option
def rollback(*, target: Target, yes: bool, wait: bool) -> None:
    console = _console()
    with Client.from_environment() as client:
        found = client.server(target.group, target.env)
        to = found.previous.mlflow_version if found.previous else None
        if to and not yes:
            _confirm(target, to)
        follow(client, console, client.rollback(target.group, target.env, to=to, server_id=found.id), wait=wait)


def _confirm(target: Target, version: str) -> None:
    if not sys.stdin.isatty():
        raise WrongUseError(_("The roll back of {target} is not confirmed").format(target=target), cure=_("Add --yes."))
    words = _("Go back to MLflow {version}? What was written since the upgrade is set aside")
    if not click.confirm(words.format(version=version), err=True):
        raise MlwfError(_("Not confirmed; nothing was changed"), cure=_("Answer y, or add --yes."))


@click.command(
    help=_(
        """Give a server another size, of those that the service offers. One that runs is restarted.

    \b
    Examples:
      mlwf server resize gaa50000/wine large
    """
    )
)
@target_argument()
@click.argument("size")
@wait_option
@stacktrace_option
def resize(*, target: Target, size: str, wait: bool) -> None:
    with Client.from_environment() as client:
        follow(client, _console(), client.resize(target.group, target.env, size), wait=wait)
