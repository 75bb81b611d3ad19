"""`aihub servers …`: the same requests as the API's, by an admin on the host; in the audit like all others."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from backend.cli.context import Row, acting_admin, confirm, json_option, ready_settings, show
from backend.cli.language import _
from backend.i18n import spoken

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from backend.api.service import Service
    from backend.registry.models import Operation, Server

_POLL_SECONDS: Final = 0.1
_COLUMNS: Final = {
    "group": _("group"),
    "env_name": "env_name",
    "status": _("status"),
    "id": "id",
    "port": _("port"),
    "mlflow_version": "MLflow",
    "bucket": _("bucket"),
    "created_by": _("created by"),
    "reason": _("reason"),
}


class ServerName(click.ParamType[tuple[str, str]]):
    """GROUP/ENV."""

    name = "GROUP/ENV"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Group and env_name."""
        if isinstance(value, tuple):
            return value
        group, slash, env = str(value).partition("/")
        if not (group and slash and env):
            self.fail(_("{value!r} is not a server: write GROUP/ENV, as `aihub servers list` shows them", value=value), param, ctx)
        return group, env


_NAME = click.argument("name", type=ServerName(), metavar="GROUP/ENV")
_ID = click.option(
    "--id", "server_id", metavar="ID", help=_("Id of one of several deleted servers (see `list --deleted`); by default the latest.")
)
_WAIT = click.option("--wait/--no-wait", default=True, help=_("Wait until it is done (default), or only ask for it."))
_YES = click.option("--yes", is_flag=True, help=_("Do not ask."))


@click.group(help=_("The tracking servers of all groups."))
def servers() -> None:
    pass


@servers.command("list", help=_("All servers, each with the status last seen."))
@click.option("--deleted", is_flag=True, help=_("Also servers that were deleted and can be restored."))
@click.option("--troubled", is_flag=True, help=_("Only servers with something wrong, and what it is."))
@json_option
@click.pass_context
def list_(context: click.Context, *, deleted: bool, troubled: bool, as_json: bool) -> None:
    found = _views(_service(context), lambda session: _all(session, deleted=deleted))
    if troubled:
        found = [view for view in found if view["reason"] is not None]
    rows: list[Row] = [
        {**view, "bucket": view["storage"]["bucket"], "reason": (view["reason"] or {}).get("detail")} if not as_json else view
        for view in found
    ]
    show(rows, _COLUMNS, as_json=as_json)


@servers.command("show", help=_("Everything about one server, as the API answers it (JSON)."))
@_NAME
@click.option("--deleted", is_flag=True, help=_("A deleted server of that name: the latest, or the one that --id names."))
@_ID
@click.option("--json", is_flag=True, expose_value=False, help=_("Changes nothing: this command always prints JSON."))
@click.pass_context
def show_(context: click.Context, *, name: tuple[str, str], deleted: bool, server_id: str | None) -> None:
    (view,) = _views(_service(context), lambda session: [_one(session, name, deleted=deleted, server_id=server_id)])
    click.echo(json.dumps(view, ensure_ascii=False, indent=2))


@servers.command(help=_("Start a stopped or failed server."))
@_NAME
@_WAIT
@click.pass_context
def start(context: click.Context, *, name: tuple[str, str], wait: bool) -> None:
    _ask(context, "start", name, wait=wait)


@servers.command(help=_("Stop a server until it is started again."))
@_NAME
@_WAIT
@click.pass_context
def stop(context: click.Context, *, name: tuple[str, str], wait: bool) -> None:
    _ask(context, "stop", name, wait=wait)


@servers.command(help=_("Delete a server. Database, settings and port are kept for a while; its bucket is never touched."))
@_NAME
@click.option("--damaged", is_flag=True, help=_("If its database cannot be copied, keep its files as they are."))
@_WAIT
@_YES
@click.pass_context
def delete(context: click.Context, *, name: tuple[str, str], damaged: bool, wait: bool, yes: bool) -> None:
    found = _must_be_there(_service(context), name)  # that name may be another server's after the answer
    days = ready_settings(context).restore_days
    confirm(_("Delete {server}, which can be restored for {days} days", server="/".join(name), days=days), yes=yes)
    _ask(context, "delete", name, wait=wait, server_id=found.id, damaged=damaged)


@servers.command(help=_("Restore a deleted server. It is the latest of that name, or the one that --id names."))
@_NAME
@_ID
@_WAIT
@click.pass_context
def restore(context: click.Context, *, name: tuple[str, str], server_id: str | None, wait: bool) -> None:
    _ask(context, "restore", name, wait=wait, server_id=server_id)


@servers.command(
    help=_(
        """Forget a deleted server now. It is the latest of that name, or the one that --id names. Its database is gone for good;
    its bucket is never touched.
    """
    )
)
@_NAME
@_ID
@_WAIT
@_YES
@click.pass_context
def purge(context: click.Context, *, name: tuple[str, str], server_id: str | None, wait: bool, yes: bool) -> None:
    found = _must_be_there(_service(context), name, deleted=True, server_id=server_id)  # the latest may be another one after the answer
    confirm(_("Purge {server}, whose runs cannot be restored afterwards", server="/".join(name)), yes=yes)
    _ask(context, "purge", name, wait=wait, server_id=found.id)


@servers.command(help=_("Give a server a newer MLflow, after a trial on a copy. The database from before is kept for a while."))
@_NAME
@click.argument("version", metavar="[MLFLOW_VERSION]", required=False)
@click.option("--mlflow-version", metavar="MLFLOW_VERSION", help=_("The same, written as for `mlwf server upgrade`."))
@_WAIT
@click.pass_context
def upgrade(context: click.Context, *, name: tuple[str, str], version: str | None, mlflow_version: str | None, wait: bool) -> None:
    if (version is None) == (mlflow_version is None):
        raise click.UsageError(_("Give the new MLflow version, once."))
    _ask(context, "upgrade", name, version or mlflow_version or "", wait=wait)


@servers.command(help=_("Undo the last upgrade. Version and database are those from before it."))
@_NAME
@_WAIT
@_YES
@click.pass_context
def rollback(context: click.Context, *, name: tuple[str, str], wait: bool, yes: bool) -> None:
    found = _must_be_there(_service(context), name)
    confirm(_("Roll back {server} and set aside what was written since the upgrade", server="/".join(name)), yes=yes)
    _ask(context, "rollback", name, wait=wait, server_id=found.id, to=found.previous_version)


@servers.command(help=_("Give a server another size; one that runs is restarted."))
@_NAME
@click.argument("size")
@_WAIT
@click.pass_context
def resize(context: click.Context, *, name: tuple[str, str], size: str, wait: bool) -> None:
    _ask(context, "resize", name, size, wait=wait)


def _service(context: click.Context) -> Service:
    from backend.serving.wiring import make_service

    return make_service(ready_settings(context))


def _views(service: Service, wanted: Callable[[Session], Sequence[Server]]) -> list[Row]:
    """Those servers as the API answers them, all of one moment."""
    from backend.api.present import Presenter
    from backend.wishes import leases, policy
    from backend.wishes.lookup import unfinished

    with service.registry.reading() as session:
        rows = wanted(session)
        ids = [row.id for row in rows]
        under_way, held = unfinished(session, ids), leases.in_force(session, ids)
    caller = acting_admin()
    groups = policy.groups_now(caller, [row.group_name for row in rows], service.directory)
    presenter = Presenter(settings=service.settings, caller=caller, language=spoken(), groups_now=groups, under_way=under_way, leases=held)
    return [presenter.server(row).model_dump(mode="json") for row in rows]


def _all(session: Session, *, deleted: bool) -> Sequence[Server]:
    from sqlalchemy import select

    from backend.registry.models import ALONE, Server

    query = select(Server).options(ALONE).order_by(Server.group_name, Server.env_name, Server.created_at)
    return session.scalars(query if deleted else query.where(Server.deleted_at.is_(None))).all()


def _one(session: Session, name: tuple[str, str], *, deleted: bool = False, server_id: str | None = None) -> Server:
    """Errors: ``no_such_server``, ``nothing_to_restore``."""
    from backend.wishes.lookup import find, not_there

    found = find(session, *name, deleted=deleted, server_id=server_id)
    if found is None:
        raise not_there(acting_admin(), *name, deleted=deleted)
    return found


def _must_be_there(service: Service, name: tuple[str, str], *, deleted: bool = False, server_id: str | None = None) -> Server:
    """The server: what is not there is said before anybody is asked for a yes. Errors: as ``_one``."""
    with service.registry.reading() as session:
        return _one(session, name, deleted=deleted, server_id=server_id)


def _ask(
    context: click.Context, kind: str, name: tuple[str, str], *values: str, wait: bool, server_id: str | None = None, **more: object
) -> None:
    from backend.wishes.lookup import Ask

    service, ask = _service(context), Ask(caller=acting_admin(), group=name[0], env=name[1], server_id=server_id)
    operation: Operation = getattr(service.requests, kind)(ask, *values, **more)
    if operation.finished_at is not None:
        click.echo(_("Nothing to do: it is so already."))
        return
    click.echo(_("{operation}: requested", operation=operation.id))
    if not wait:
        return
    from backend.api.service import reconciler_seen

    if not reconciler_seen(service.settings)[1]:
        click.echo(_("The service is not running; it will do this once it is started."), err=True)
        return
    _follow(service, operation.id)


def _follow(service: Service, operation_id: str) -> None:
    """Tell each step as it begins, and how it ended. Ctrl-C ends the telling, not the operation."""
    from mlwf.errors import with_cure

    from backend.api.present import operation_view
    from backend.cli.failures import CommandError
    from backend.registry.models import Operation

    told: set[str] = set()
    while True:
        with service.registry.reading() as session:
            row = session.get(Operation, operation_id)
        if row is None:
            raise CommandError(_("the operation {operation} is gone; see `aihub operations`", operation=operation_id))
        view = operation_view(row, spoken())
        for step in view.steps:
            if step.state != "pending" and step.name not in told:
                told.add(step.name)
                click.echo(f"  {step.label}")
        if view.finished_at is not None:
            if view.error is not None:
                raise CommandError(with_cure(view.error.detail, view.error.cure))
            click.echo(view.message)
            return
        time.sleep(_POLL_SECONDS)
