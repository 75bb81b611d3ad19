"""`mlwf server auth|env|storage`: who may log in, what a job needs for it, and the keys of the object store."""

import os
import pwd
import shlex
import sys
from pathlib import Path

import click
from rich.console import Console

from mlwf import auth_file
from mlwf.cli.output import console as _console
from mlwf.cli.support import Target, follow, key_options, keys, stacktrace_option, target_argument, wait_option
from mlwf.cli.token import lifetime, lifetime_options
from mlwf.client import Client
from mlwf.errors import MlwfError, WrongUseError
from mlwf.i18n import _
from mlwf.line import is_one_line
from mlwf.new_token import make_token
from mlwf.report import stderr
from mlwf.settings import environment
from mlwf.transfer.session import file_before_token


@click.command(
    help=_(
        """Register the users who may log in. They are read from basic_auth.yml.

    'mlwf server show' tells where the file of the server is. It holds {'user_name': '…', 'pass': '…'}, or a list of such, and is
    read as you. Whoever it does not name is out.

    \b
    Examples:
      mlwf server auth gaa50000/wine
      mlwf server auth gaa50000/wine --generate
      mlwf server auth gaa50000/wine --generate alice
    """
    )
)
@target_argument()
@click.option(
    "--generate",
    "user",
    metavar="[USER]",
    is_flag=False,
    flag_value="",
    help=_("Make the file first, with USER (you, if not given) and a new strong password. An existing file is never changed."),
)
@wait_option
@stacktrace_option
def auth(*, target: Target, user: str | None, wait: bool) -> None:
    console = _console()
    if user and ("/" in user or ":" in user or not is_one_line(user)):
        raise WrongUseError(_("{user} is not a user name").format(user=user), cure=_("Write GROUP/ENV before --generate."))
    with Client.from_environment() as client:
        server = client.server(target.group, target.env)
        path = Path(server.auth_file)
        if user is not None:
            _generate(console, path, user or pwd.getpwuid(os.getuid()).pw_name, server.gid)
        users = auth_file.read_auth_file(path)
        if auth_file.open_to_all(path):
            console.print(_("Warning: everybody on this host can read {path}. Run: chmod o-rwx {path}").format(path=path), markup=False)
        operation = client.set_users(target.group, target.env, users)
        if follow(client, console, operation, wait=wait):
            console.print(_("May log in: {names}").format(names=", ".join(each.user_name for each in users)), markup=False)


def _generate(console: Console, path: Path, user: str, gid: int | None) -> None:
    try:
        auth_file.generate_auth_file(path, user, gid)
    except FileExistsError:
        console.print(_("{path} is there already, and is used as it is.").format(path=path), markup=False)
    else:
        console.print(_("Made {path} with a new password for {user}.").format(path=path, user=user), markup=False)


@click.command(
    help=_(
        """Print the export lines that a job's shell needs.

    They set MLFLOW_TRACKING_URI, and user name and password from basic_auth.yml. With --token a new bearer token of yours instead
    of the password (MLFLOW_TRACKING_TOKEN). MLflow takes it only where ~/.mlflow/credentials holds no user and password.

    \b
    Examples:
      eval "$(mlwf server env gaa50000/wine)"
      eval "$(mlwf server env gaa50000/wine --user alice)"
      eval "$(mlwf server env gaa50000/wine --token --hours 12)"
    """
    )
)
@target_argument()
@click.option("--user", metavar="NAME", help=_("A user of the file; the first by default."))
@click.option("--token", is_flag=True, help=_("A new token instead of a user and password."))
@lifetime_options
@stacktrace_option
def env(*, target: Target, user: str | None, token: bool, hours: float | None, days: float | None) -> None:
    if not token and (hours, days) != (None, None):
        raise WrongUseError(_("--hours and --days are for --token"), cure=_("Add --token, or leave them out."))
    seconds = lifetime(hours, days)
    if sys.stdout.isatty():
        raise WrongUseError(
            _("The password would be shown on the screen"),
            cure=_('Write: eval "$(mlwf server env {target})"').format(target=target),
        )
    with Client.from_environment() as client:
        found = client.server(target.group, target.env)
        if token:
            _warn_of_file()
            _made, secret = make_token(client, target.group, target.env, seconds=seconds, name="mlwf server env", wait=True)
            login = {"MLFLOW_TRACKING_TOKEN": secret.reveal()}
        else:
            login = _password_of(Path(found.auth_file), user)
    values = {"MLFLOW_TRACKING_URI": found.inside_url or "", **login}
    if found.storage.artifact_access == "direct" and found.storage.endpoint_url:
        values["MLFLOW_S3_ENDPOINT_URL"] = found.storage.endpoint_url
    lines = [f"export {name}={shlex.quote(value)}" for name, value in values.items()]
    "".join(lines).encode(sys.stdout.encoding)  # said where it cannot be printed: with another sign in it, it is another password
    for line in lines:
        click.echo(line)
    # What the shell still has of the other kind would be sent instead: a pair by MLflow's client, a token by who takes it before a file.
    other = "MLFLOW_TRACKING_USERNAME MLFLOW_TRACKING_PASSWORD" if token else "MLFLOW_TRACKING_TOKEN"
    # With the last one models would be registered elsewhere, where this server's export does not find them.
    click.echo(f"unset {other} MLFLOW_REGISTRY_URI")


def _warn_of_file() -> None:
    path = file_before_token(environment())
    if path:
        words = _("Warning: MLflow will send the user and password in {path}, and not the token. Take them out of that file.")
        stderr().print(words.format(path=path), markup=False)


def _password_of(path: Path, user: str | None) -> dict[str, str]:
    users = {each.user_name: each for each in auth_file.read_auth_file(path)}
    chosen = users.get(user or next(iter(users)))
    if chosen is None:
        cure = _("Choose one that it has: {known}.").format(known=", ".join(users))
        raise MlwfError(_("{path} has no user {user}").format(path=path, user=user), cure=cure)
    return {"MLFLOW_TRACKING_USERNAME": chosen.user_name, "MLFLOW_TRACKING_PASSWORD": chosen.password.reveal()}


@click.command(
    help=_(
        """Change the keys (or the address) of the server's object store. The bucket stays.

    The new keys are tried first; the old ones stay until they work.

    \b
    Example:
      mlwf server storage gaa50000/wine --profile default
    """
    )
)
@target_argument()
@key_options
@click.option("--endpoint-url", metavar="URL", help=_("New address of the object store."))
@click.option("--region", help=_("Region of the object store."))
@wait_option
@stacktrace_option
def storage(
    *,
    target: Target,
    profile: str | None,
    credentials_file: Path | None,
    endpoint_url: str | None,
    region: str | None,
    wait: bool,
) -> None:
    pair = keys(profile, credentials_file)
    with Client.from_environment() as client:
        operation = client.set_storage(
            target.group,
            target.env,
            access_key_id=pair.access_key_id,
            secret_access_key=pair.secret_access_key,
            endpoint_url=endpoint_url,
            region=region,
        )
        follow(client, _console(), operation, wait=wait)
