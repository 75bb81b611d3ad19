"""Servers as a person reads them."""

import datetime as dt
import sys
from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mlwf.answers import Problem, Server
from mlwf.errors import with_cure
from mlwf.i18n import _
from mlwf.report import terminal_variables

COLOURS = {"running": "green", "sleeping": "cyan", "failed": "bold red", "creating": "yellow", "deleting": "yellow"}
UNLIMITED = 10_000
GAP, NARROWEST = 2, 8
"""Between two columns of a table, and of one that is folded (cells)."""


def console() -> Console:
    """As wide as the terminal; elsewhere a table's row is one line, whatever its length."""
    width = None if sys.stdout.isatty() else UNLIMITED
    return Console(highlight=False, emoji=False, soft_wrap=True, width=width, _environ=terminal_variables())


def local_time(moment: str | None) -> str:
    """A moment of the service's (UTC, ISO 8601) in the reader's time zone, to the minute; "-" for none."""
    return dt.datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M") if moment else "-"


def table_of(*titles: str) -> Table:
    """A table whose cells are never cut off: on a terminal they are folded. Without titles it has no head."""
    table = Table(box=None, pad_edge=False, header_style="bold", show_header=bool(titles))
    for title in titles:
        table.add_column(title, overflow="fold")
    return table


def fold_first(table: Table, column: int, width: int) -> None:
    """On a terminal that is too narrow for the table, that column alone is folded, as long as some of it is left: addresses and names are
    copied from the others.
    """
    others = [each for number, each in enumerate(table.columns) if number != column]
    taken = sum(max(cell_len(str(cell)) for cell in (each.header, *each.cells)) + GAP for each in others)
    for each in others:
        each.no_wrap = taken + NARROWEST <= width


def print_table(table: Table, out: Console | None = None) -> None:
    (out or console()).print(table, soft_wrap=False)


def print_servers(servers: Sequence[Server]) -> None:
    """One line each."""
    if not servers:
        console().print(_("There is no server yet. Make one with: mlwf server create GROUP/ENV --bucket BUCKET"), markup=False)
        return
    deleted = [_("can be restored until"), "ID"] if any(each.deletion for each in servers) else []
    table = table_of("GROUP/ENV", _("status"), _("users"), _("URL for access from inside"), *deleted)
    for each in sorted(servers, key=lambda server: (server.group, server.env_name)):
        names = ", ".join(each.users.names) or _("nobody")
        table.add_row(
            Text(f"{each.group}/{each.env_name}"),
            Text(each.status, COLOURS.get(each.status, "")),
            Text(names),
            Text(each.inside_url or "-"),
            *([Text(local_time(each.deletion.restorable_until if each.deletion else None)), Text(each.id)] if deleted else []),
        )
    out = console()
    fold_first(table, 2, out.width)
    print_table(table, out)


def print_server(server: Server, out: Console, *, brief: bool = False) -> None:
    """Name and value on each line; `brief` only what a user needs next."""
    storage = server.storage
    rows = [
        ("GROUP/ENV", f"{server.group}/{server.env_name}"),
        (_("status"), server.status),
        (_("URL for access from inside"), server.inside_url or "-"),
        (_("URL for access from outside"), server.outside_url or "-"),
        (_("user file"), server.auth_file),
    ]
    if not brief:
        rows += [
            (_("users"), ", ".join(server.users.names) or _("nobody")),
            (_("bucket"), f"s3://{storage.bucket}/{storage.prefix}"),
            (_("object store"), storage.endpoint_url or "-"),
            (_("access key"), storage.access_key_id or "-"),
            (_("artifacts"), storage.artifact_access),
            ("MLflow", server.mlflow_version),
            (_("size"), server.size or "-"),
            (_("created"), f"{local_time(server.created_at)} ({server.created_by})"),
            (_("operation under way"), server.operation or "-"),
        ]
        if server.upgrades:
            rows.append((_("newer MLflow"), ", ".join(server.upgrades)))
        if server.previous:
            rows.append((_("can go back to"), f"MLflow {server.previous.mlflow_version} ({local_time(server.previous.until)})"))
        if server.deletion:
            rows.append((_("can be restored until"), local_time(server.deletion.restorable_until)))
    table = table_of()
    for name, value in rows:
        table.add_row(Text(name, "bold"), Text(value, overflow="fold"))
    print_table(table, out)
    for problem in [*([server.reason] if server.reason else []), *server.warnings]:
        _print_problem(problem, out)


def _print_problem(problem: Problem, out: Console) -> None:
    out.print(Text(f"! {with_cure(problem.detail, problem.cure)}", "yellow"))
