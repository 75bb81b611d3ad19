"""`mlwf token`: bearer tokens, with which a job logs in to one server without anybody's password."""

import json

import click
from rich.text import Text

from mlwf.cli.output import console, local_time, print_table, table_of
from mlwf.cli.support import Amount, Command, Target, json_option, stacktrace_option, target_argument
from mlwf.client import Client
from mlwf.errors import WrongUseError
from mlwf.i18n import _
from mlwf.new_token import make_token
from mlwf.report import stderr

DEFAULT_SECONDS = 7 * 86400
LEAST_SECONDS = 60
# More than any service gives, which says what it does give.
MOST_SECONDS = 1e10


@click.group(
    help=_(
        """Bearer tokens: for one server, for a time, without a password.

    \b
    Examples:
      mlwf token create gaa50000/wine --days 3 --name "night run"
      eval "$(mlwf server env gaa50000/wine --token --days 3)"
      mlwf token revoke gaa50000/wine k3v9x2m7q4ab
    """
    )
)
def token() -> None:
    pass


def lifetime_options(command: Command) -> Command:
    positive = Amount(min=0, min_open=True)
    hours = click.option("--hours", type=positive, metavar="HOURS", help=_("Lifetime in hours."))
    days = click.option("--days", type=positive, metavar="DAYS", help=_("Lifetime in days; 7 by default."))
    return hours(days(command))


def lifetime(hours: float | None, days: float | None) -> int:
    """Seconds. Raises WrongUseError for both at once, and for less than a minute."""
    if hours is not None and days is not None:
        raise WrongUseError(_("--hours and --days are both given"), cure=_("Give one of them."))
    if hours is None and days is None:
        return DEFAULT_SECONDS
    seconds = (hours or 0) * 3600 + (days or 0) * 86400
    if seconds < LEAST_SECONDS:
        raise WrongUseError(_("A token must be valid for at least a minute"), cure=_("Give a longer time."))
    return round(min(seconds, MOST_SECONDS))


@token.command(
    help=_(
        """Make a token and print it. It is shown this once, and ends when you leave the group.

    \b
    Examples:
      mlwf token create gaa50000/wine --hours 12
      export MLFLOW_TRACKING_TOKEN=$(mlwf token create gaa50000/wine --days 3 --name "night run")
    """
    )
)
@target_argument()
@lifetime_options
@click.option("--name", default="", metavar="TEXT", help=_("What it is for, in the list."))
@click.option("--wait/--no-wait", default=True, help=_("Wait until the server accepts it (default)."))
@stacktrace_option
def create(*, target: Target, hours: float | None, days: float | None, name: str, wait: bool) -> None:
    seconds = lifetime(hours, days)
    with Client.from_environment() as client:
        made, secret = make_token(client, target.group, target.env, seconds=seconds, name=name, wait=wait)
    words = _("Token {id} of {target} is good until {until}. It is not shown again.")
    stderr().print(words.format(id=made.id, target=target, until=local_time(made.expires_at)), markup=False)
    click.echo(secret.reveal())


@token.command("list", help=_("List the tokens of a server. Those that are over stay in the list for a week."))
@target_argument()
@json_option
@stacktrace_option
def list_tokens(*, target: Target, as_json: bool) -> None:
    with Client.from_environment() as client:
        found = client.tokens(target.group, target.env)
    if as_json:
        click.echo(json.dumps({"tokens": [each.raw for each in found]}, indent=2, ensure_ascii=False))
        return
    if not found:
        console().print(_("This server has no tokens."), markup=False)
        return
    table = table_of("ID", _("user"), _("state"), _("until"), _("name"))
    for each in found:
        table.add_row(each.id, Text(each.user), each.state, local_time(each.expires_at), Text(each.name))
    print_table(table)


@token.command(help=_("End a token now."))
@target_argument()
@click.argument("token_id", metavar="ID")
@stacktrace_option
def revoke(*, target: Target, token_id: str) -> None:
    with Client.from_environment() as client:
        client.revoke_token(target.group, target.env, token_id)
    stderr().print(_("Token {id} is revoked.").format(id=token_id), markup=False)
