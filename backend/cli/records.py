"""`aihub operations` and `aihub audit`: what was asked for, by whom, and what became of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from backend.cli.context import Row, json_option, ready_settings, show
from backend.cli.language import _
from backend.i18n import spoken

if TYPE_CHECKING:
    from sqlalchemy import Select

    from backend.registry.database import Registry
    from backend.registry.models import AuditEntry, Operation

M = TypeVar("M", "AuditEntry", "Operation")
PART: Final = 500
"""An SQLite from before 3.32, as of RHEL 8, takes no more than 999 values in a question."""
_OPERATIONS: Final = {
    "created_at": _("created"),
    "kind": _("operation"),
    "group": _("group"),
    "env_name": "env_name",
    "requested_by": _("requested by"),
    "state": _("state"),
    "error": _("error"),
}
_AUDIT: Final = {
    "at": _("at"),
    "user": _("user"),
    "scheme": _("scheme"),
    "action": _("action"),
    "group": _("group"),
    "env_name": "env_name",
    "operation_id": _("operation id"),
    "request_id": _("request id"),
}


@click.command(help=_("Operations, the latest first."))
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 100_000), help=_("How many to show, the latest first."))
@click.option("--state", type=click.Choice(["pending", "running", "succeeded", "failed"]), help=_("Only operations in that state."))
@json_option
@click.pass_context
def operations(context: click.Context, *, limit: int, state: str | None, as_json: bool) -> None:
    from sqlalchemy import select

    from backend.api.present import operation_view
    from backend.registry.models import Operation
    from backend.serving.wiring import open_registry

    query = select(Operation).order_by(Operation.created_at.desc()).limit(limit)
    if state:
        query = query.where(Operation.state == state)
    found = _in_parts(open_registry(ready_settings(context)), Operation, query)
    views = (operation_view(row, spoken()).model_dump(mode="json") for row in found)
    show(views if as_json else map(_with_error, views), _OPERATIONS, as_json=as_json)


def _with_error(view: Row) -> Row:
    return {**view, "error": view["error"] and view["error"]["detail"]}


@click.command(help=_("Who asked for what, the latest first."))
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 1_000_000), help=_("How many to show, the latest first."))
@click.option("--user", help=_("Only what that user asked for."))
@click.option("--group", help=_("Only for servers of that group."))
@click.option(
    "--since",
    type=click.DateTime(),
    metavar="DATE",
    help=_("Only from that time on (UTC): 2026-11-29, or with a time, 2026-11-29T09:30:00."),
)
@json_option
@click.pass_context
def audit(context: click.Context, *, limit: int, user: str | None, group: str | None, since: datetime | None, as_json: bool) -> None:
    from sqlalchemy import select

    from backend.registry.models import AuditEntry
    from backend.serving.wiring import open_registry

    query = select(AuditEntry).order_by(AuditEntry.id.desc()).limit(limit)
    if user:
        query = query.where(AuditEntry.user == user)
    if group:
        query = query.where(AuditEntry.group_name == group)
    if since:
        query = query.where(AuditEntry.at >= since.replace(tzinfo=UTC))
    found = _in_parts(open_registry(ready_settings(context)), AuditEntry, query)
    show(map(_entry, found), _AUDIT, as_json=as_json)


def _entry(row: AuditEntry) -> Row:
    return {
        "at": row.at.isoformat(timespec="seconds"),
        "user": row.user,
        "uid": row.uid,
        "scheme": row.scheme,
        "action": row.action,
        "group": row.group_name,
        "env_name": row.env_name,
        "server_id": row.server_id,
        "operation_id": row.operation_id,
        "request_id": row.request_id,
    }


def _in_parts(registry: Registry, table: type[M], query: Select[Any]) -> Iterator[M]:
    """The rows that the query finds, so many at a time: all of an audit's at once may be more than the host's memory. Each part is a
    transaction of its own, since whoever reads may be a pager that waits for hours.
    """
    from sqlalchemy import select

    with registry.reading() as session:
        ids = list(session.scalars(query.with_only_columns(table.id)))
    for first in range(0, len(ids), PART):
        part = ids[first : first + PART]
        with registry.reading() as session:
            rows = {row.id: row for row in session.scalars(select(table).where(table.id.in_(part)))}
        yield from (rows[each] for each in part if each in rows)  # an operation may be forgotten meanwhile
