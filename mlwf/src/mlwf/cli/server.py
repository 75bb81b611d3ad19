"""`mlwf server`: the tracking servers of the caller's groups."""

import datetime as dt
import json
import sys
from pathlib import Path

import click
from rich.console import Console

from mlwf.cli.output import console as _console
from mlwf.cli.output import local_time, print_server, print_servers
from mlwf.cli.support import Target, follow, json_option, key_options, keys, stacktrace_option, target_argument, wait_option
from mlwf.client import Client
from mlwf.errors import MlwfError, WrongUseError
from mlwf.i18n import _


@click.group(
    help=_(
        """Tracking servers of your groups.

    \b
    Examples:
      mlwf server create gaa50000/wine --bucket wine-models --profile default
      mlwf server auth gaa50000/wine --generate
      mlwf server list
    """
    )
)
def server() -> None:
    pass


@server.command("list", help=_("List the servers of your groups."))
@click.option("--all", "everyone", is_flag=True, help=_("The servers of every group (admins only)."))
@click.option("--deleted", is_flag=True, help=_("Also the deleted ones that can be restored."))
@json_option
@stacktrace_option
def list_servers(*, everyone: bool, deleted: bool, as_json: bool) -> None:
    with Client.from_environment() as client:
        found = client.servers(all=everyone, deleted=deleted)
    if as_json:
        click.echo(json.dumps({"servers": [each.raw for each in found]}, indent=2, ensure_ascii=False))
    else:
        print_servers(found)


@server.command(help=_("Show everything about one server."))
@target_argument()
@json_option
@stacktrace_option
def show(*, target: Target, as_json: bool) -> None:
    with Client.from_environment() as client:
        found = client.server(target.group, target.env)
    if as_json:
        click.echo(json.dumps(found.raw, indent=2, ensure_ascii=False))
    else:
        print_server(found, _console())


@server.command(
    help=_(
        """Create a server that keeps its artifacts in an S3 bucket.

    The keys come from --profile or --credentials-file, from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or are asked for. The bucket
    and the key are tried before anything is made.

    \b
    Examples:
      mlwf server create gaa50000/wine --bucket wine-models --profile default
      mlwf server create gaa50000/wine --bucket wine-models --idle-seconds 3600 --no-wait
    """
    )
)
@target_argument(new=True)
@click.option("--bucket", required=True, help=_("Name of the S3 bucket; it must exist."))
@key_options
@click.option("--endpoint-url", metavar="URL", help=_("Address of the object store, where it is not the site's own."))
@click.option("--region", help=_("Region of the object store."))
@click.option(
    "--artifact-access",
    type=click.Choice(["proxied", "direct"]),
    help=_("Artifacts go through the server, or clients access S3 themselves."),
)
@click.option("--mlflow-version", metavar="VERSION", help=_("MLflow version, of those that the service offers."))
@click.option("--size", metavar="NAME", help=_("How much of the host it may take, of the sizes that the service offers."))
@click.option("--idle-seconds", type=click.IntRange(min=0), help=_("Sleep after this many seconds without a request; 0: never."))
@wait_option
@stacktrace_option
def create(
    *,
    target: Target,
    bucket: str,
    profile: str | None,
    credentials_file: Path | None,
    endpoint_url: str | None,
    region: str | None,
    artifact_access: str | None,
    mlflow_version: str | None,
    size: str | None,
    idle_seconds: int | None,
    wait: bool,
) -> None:
    pair = keys(profile, credentials_file)
    console = _console()
    with Client.from_environment() as client:
        operation = client.create(
            group=target.group,
            env_name=target.env,
            bucket=bucket,
            access_key_id=pair.access_key_id,
            secret_access_key=pair.secret_access_key,
            endpoint_url=endpoint_url,
            region=region,
            artifact_access=artifact_access,
            mlflow_version=mlflow_version,
            size=size,
            idle_seconds=idle_seconds,
        )
        if follow(client, console, operation, wait=wait):
            print_server(client.server(target.group, target.env), console, brief=True)
            words = _("Nobody can log in yet. Register users with: mlwf server auth {target} --generate")
            console.print(words.format(target=target), markup=False)


@server.command(help=_("Start a stopped server."))
@target_argument()
@wait_option
@stacktrace_option
def start(*, target: Target, wait: bool) -> None:
    with Client.from_environment() as client:
        follow(client, _console(), client.start(target.group, target.env), wait=wait)


@server.command(help=_("Stop a server. It stays stopped until it is started; requests are refused meanwhile."))
@target_argument()
@wait_option
@stacktrace_option
def stop(*, target: Target, wait: bool) -> None:
    with Client.from_environment() as client:
        follow(client, _console(), client.stop(target.group, target.env), wait=wait)


@server.command(
    help=_(
        """Delete a server. It can be restored for some days; objects in the bucket are never touched.

    \b
    Examples:
      mlwf server delete gaa50000/wine
      mlwf server delete gaa50000/wine --yes
    """
    )
)
@target_argument()
@click.option("--yes", is_flag=True, help=_("Do not ask for the name to be typed."))
@wait_option
@stacktrace_option
def delete(*, target: Target, yes: bool, wait: bool) -> None:
    console = _console()
    with Client.from_environment() as client:
        found = client.server(target.group, target.env)
        days = client.me().restore_days
        _say_what_is_kept(console, target, f"s3://{found.storage.bucket}/{found.storage.prefix}", days)
        if not yes:
            _ask_for_name(target)
        if not follow(client, console, client.delete(target.group, target.env, server_id=found.id), wait=wait):
            return
        deletion = next((each.deletion for each in client.servers(deleted=True) if each.id == found.id), None)
        if deletion and deletion.restorable_until:
            words = _("Can be restored until {date} with: mlwf server restore {target}")
            console.print(words.format(date=local_time(deletion.restorable_until), target=target), markup=False)


def _say_what_is_kept(console: Console, target: Target, place: str, days: int | None) -> None:
    if days:
        until = (dt.datetime.now().astimezone() + dt.timedelta(days=days)).strftime("%Y-%m-%d")
        console.print(_("Kept until {until}: a snapshot of the database, the settings and the port.").format(until=until), markup=False)
        console.print(_("Until then 'mlwf server restore {target}' brings it back.").format(target=target), markup=False)
    console.print(_("The objects in {place} stay as they are.").format(place=place), markup=False)


def _ask_for_name(target: Target) -> None:
    if not sys.stdin.isatty():
        raise WrongUseError(_("The deletion of {target} is not confirmed").format(target=target), cure=_("Add --yes."))
    typed = click.prompt(_("Type the name {env} to delete it").format(env=target.env), err=True, default="", show_default=False)
    if typed != target.env:
        raise MlwfError(
            _("The name that you typed does not match; nothing was deleted"), cure=_("Type {env} exactly.").format(env=target.env)
        )


@server.command(help=_("Bring a deleted server back. Its database, settings and port are as before."))
@target_argument(deleted=True)
@click.option(
    "--id", "server_id", metavar="ID", help=_("Id of one of several deleted servers of that name (list --deleted); by default the latest.")
)
@wait_option
@stacktrace_option
def restore(*, target: Target, server_id: str | None, wait: bool) -> None:
    with Client.from_environment() as client:
        follow(client, _console(), client.restore(target.group, target.env, server_id), wait=wait)
