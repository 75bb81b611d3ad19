"""mlwf doctor: is this node able to work with a tracking server?"""

import json

import click
from rich.text import Text

from mlwf.cli.output import print_table, table_of
from mlwf.cli.support import Amount, json_option, stacktrace_option
from mlwf.doctor.findings import Check, Finding, as_json, look
from mlwf.doctor.node_checks import Node
from mlwf.doctor.server_checks import Server, installed_mlflow
from mlwf.doctor.store_checks import Bucket
from mlwf.i18n import _
from mlwf.settings import environment
from mlwf.transfer.session import base_url

MARKS = {"ok": ("✓", "green"), "note": ("·", "yellow"), "failed": ("✗", "bold red")}
SECONDS = 5.0


@click.command(
    short_help=_("Look whether this node can work with a tracking server."),
    help=_(
        """Look whether this node can work with a tracking server: network, login, versions, bucket, clock, space, containers.

    URL is the server's, as Service List shows it; MLFLOW_TRACKING_URI by default. Without either, only the node is looked at. Everything
    is tried at the same time and takes five seconds at most. Nothing stays behind.

    \b
    Examples:
      mlwf doctor
      mlwf doctor http://HOST:PORT/mlflow/ --json
    """
    ),
)
@click.argument("url", metavar="[URL]", required=False)
@click.option("--seconds", type=Amount(1, 120), default=SECONDS, show_default=True, help=_("How long to wait for all answers."))
@json_option
@stacktrace_option
def doctor(url: str | None, seconds: float, *, as_json: bool) -> int:
    findings, titles = examine(url, seconds)
    if as_json:
        click.echo(json.dumps(_document(findings, titles), ensure_ascii=False, indent=2))
    else:
        _show(findings, titles)
    return int(any(each.state == "failed" for each in findings))


def examine(url: str | None, seconds: float) -> tuple[list[Finding], dict[str, str]]:
    """All findings, and the checks' titles by name. Raises WrongUseError for a URL that is none."""
    environ = environment()
    url = url or environ.get("MLFLOW_TRACKING_URI")
    checks: list[Check] = []
    if url:
        server = Server(base_url(url), environ, installed_mlflow)
        checks += server.checks() + Bucket(server, environ).checks()
    checks += Node(environ).checks()
    return look(checks, seconds=seconds), {check.name: check.title for check in checks}


def _document(findings: list[Finding], titles: dict[str, str]) -> dict[str, object]:
    return {"ok": all(each.state != "failed" for each in findings), "checks": as_json(findings, titles)}


def _show(findings: list[Finding], titles: dict[str, str]) -> None:
    table = table_of()
    for each in findings:
        mark, style = MARKS[each.state]
        words = Text(each.text)
        if each.cure:
            words.append(f"\n→ {each.cure}", "yellow")
        table.add_row(Text(mark, style), Text(titles[each.check], "bold"), words)
    print_table(table)
