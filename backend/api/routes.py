"""The API's paths. Each handler is short: who asks and what was asked is known when it begins; it writes or reads, and presents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

from flask import Response, current_app, g, jsonify
from flask_openapi3.blueprint import APIBlueprint
from sqlalchemy import select

import backend
from backend import log as logs
from backend.api.answers import (
    Answer,
    Health,
    LeaseList,
    LeaseView,
    Me,
    OperationView,
    ReconcilerView,
    ServerList,
    ServerView,
    TicketView,
    TokenList,
    TokenMade,
    TokenView,
)
from backend.api.inputs import (
    LeasePath,
    LeasePut,
    OnlyQuery,
    OperationPath,
    RollbackQuery,
    ServerCreate,
    ServerPath,
    ServersQuery,
    SizeChoice,
    StorageChange,
    TokenCreate,
    TokenPath,
    UsersPut,
    VersionChoice,
)
from backend.api.present import Presenter, lease_view, me_view, operation_view, ticket_view, token_view
from backend.api.problems import CONTENT_TYPE
from backend.api.service import Service, reconciler_seen
from backend.domain import Caller
from backend.errors import ServiceError
from backend.messages import TITLES
from backend.registry.models import ALONE, Lease, Operation, Server
from backend.wishes import leases, membership, policy
from backend.wishes.lookup import Ask, find, not_there, unfinished

PREFIX: Final = "/api/v1"
EXTENSION: Final = "aihub"
PUBLIC: Final = frozenset({"api.health", "openapi_document"})
"""Endpoints that need not know who calls."""


def _answers(status: int, model: type[Answer], *problems: int) -> dict[str | int, Any]:
    """The answers of a path for the OpenAPI document: the good one, the problems that every path has, and those of this one."""
    content = {CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    every: dict[str | int, Any] = {
        str(each): {"description": TITLES[each], "content": content} for each in sorted({*_EVERYWHERE, *problems})
    }
    return {str(status): model, **every}


_EVERYWHERE: Final = (400, 405, 422, 500)
_READ: Final = (401, 403, 404, 503)
_CHANGE: Final = (*_READ, 409, 413, 429)
api = APIBlueprint("api", __name__, url_prefix=PREFIX)


def _service() -> Service:
    return cast("Service", current_app.extensions[EXTENSION])


def _caller() -> Caller:
    return cast("Caller", g.caller)


def _json(view: Answer) -> Response:
    return jsonify(view.model_dump(mode="json"))


def _made(view: Answer) -> Response:
    response = _json(view)
    response.status_code = 201
    return response


def _accepted(operation: Operation) -> Response:
    g.about.enter_context(logs.about(operation_id=operation.id, server_id=operation.server_id))
    response = _json(operation_view(operation, g.language))
    response.status_code = 202
    response.headers["Location"] = f"{PREFIX}/operations/{operation.id}"
    return response


def _changed(path: ServerPath, query: OnlyQuery, change: Callable[..., Operation], *given: object, **more: object) -> Response:
    """What was asked of one server, of whichever has that name or of the one that is meant."""
    ask = Ask(caller=_caller(), group=path.group, env=path.env, server_id=query.server_id, request_id=g.request_id)
    return _accepted(change(ask, *given, **more))


@api.get("/health", responses=_answers(200, Health))
def health() -> Response:
    """Whether the service works. Nobody need be known."""
    seen, alive = reconciler_seen(_service().settings)
    reconciler = ReconcilerView(seen_at=seen, ok=alive)
    return _json(Health(status="ok" if alive else "degraded", version=backend.__version__, reconciler=reconciler))


@api.get("/me", responses=_answers(200, Me, *_READ))
def me() -> Response:
    """The caller, and what forms offer."""
    return _json(me_view(_service(), _caller()))


@api.get("/servers", responses=_answers(200, ServerList, *_READ))
def list_servers(query: ServersQuery) -> Response:
    """The servers of the caller's groups."""
    caller, service = _caller(), _service()
    if query.all == "true" and not caller.admin:
        raise ServiceError("not_allowed", who=policy.ADMINS)
    wanted = select(Server).options(ALONE).order_by(Server.group_name, Server.env_name, Server.created_at)
    if query.all != "true":
        wanted = wanted.where(Server.gid.in_([group.gid for group in caller.groups]))
    if query.deleted != "true":
        wanted = wanted.where(Server.deleted_at.is_(None))
    with service.registry.reading() as session:
        rows = session.scalars(wanted).all()
        found = [row.id for row in rows]
        under_way, held = unfinished(session, found), leases.in_force(session, found)
    membership.saw(service.registry, rows, caller)
    presenter = _presenter([row.group_name for row in rows], under_way, held)
    return _json(ServerList(servers=[presenter.server(row) for row in rows]))


@api.post("/servers", responses=_answers(202, OperationView, *_CHANGE))
def create_server(body: ServerCreate) -> Response:
    """Make a tracking server."""
    return _accepted(_service().requests.create(_caller(), body.wish(), request_id=g.request_id))


@api.get("/servers/<group>/<env>", responses=_answers(200, ServerView, *_READ))
def get_server(path: ServerPath) -> Response:
    """One server."""
    with _service().registry.reading() as session:
        row = find(session, path.group, path.env)
        ids = [row.id] if row else []
        under_way, held = unfinished(session, ids), leases.in_force(session, ids)
    if row is None:
        raise not_there(_caller(), path.group, path.env)
    hidden = policy.unseen(_caller(), row)
    if hidden is not None:
        raise hidden
    membership.saw(_service().registry, [row], _caller())
    return _json(_presenter([row.group_name], under_way, held).server(row))


@api.delete("/servers/<group>/<env>", responses=_answers(202, OperationView, *_CHANGE))
def delete_server(path: ServerPath, query: OnlyQuery) -> Response:
    """Delete a server; it can be restored for a while, and its bucket is not touched."""
    return _changed(path, query, _service().requests.delete)


@api.post("/servers/<group>/<env>/start", responses=_answers(202, OperationView, *_CHANGE))
def start_server(path: ServerPath, query: OnlyQuery) -> Response:
    """Start a stopped or failed server."""
    return _changed(path, query, _service().requests.start)


@api.post("/servers/<group>/<env>/stop", responses=_answers(202, OperationView, *_CHANGE))
def stop_server(path: ServerPath, query: OnlyQuery) -> Response:
    """Stop a server until it is started again."""
    return _changed(path, query, _service().requests.stop)


@api.post("/servers/<group>/<env>/restore", responses=_answers(202, OperationView, *_CHANGE))
def restore_server(path: ServerPath, query: OnlyQuery) -> Response:
    """Undo a delete: of the server with that id, or the latest of that name."""
    return _changed(path, query, _service().requests.restore)


@api.post("/servers/<group>/<env>/upgrade", responses=_answers(202, OperationView, *_CHANGE))
def upgrade_server(path: ServerPath, query: OnlyQuery, body: VersionChoice) -> Response:
    """Give the server a newer MLflow, after a trial on a copy; the database from before is kept for a while."""
    return _changed(path, query, _service().requests.upgrade, body.mlflow_version)


@api.post("/servers/<group>/<env>/rollback", responses=_answers(202, OperationView, *_CHANGE))
def roll_back_server(path: ServerPath, query: RollbackQuery) -> Response:
    """Go back to the version and the database from before the last upgrade."""
    return _changed(path, query, _service().requests.rollback, to=query.mlflow_version)


@api.put("/servers/<group>/<env>/size", responses=_answers(202, OperationView, *_CHANGE))
def put_size(path: ServerPath, query: OnlyQuery, body: SizeChoice) -> Response:
    """Give the server another size; one that runs is restarted."""
    return _changed(path, query, _service().requests.resize, body.size)


@api.put("/servers/<group>/<env>/users", responses=_answers(202, OperationView, *_CHANGE))
def put_users(path: ServerPath, query: OnlyQuery, body: UsersPut) -> Response:
    """Set who can log in: the whole list."""
    return _changed(path, query, _service().requests.set_users, body.pairs())


@api.put("/servers/<group>/<env>/storage", responses=_answers(202, OperationView, *_CHANGE))
def put_storage(path: ServerPath, query: OnlyQuery, body: StorageChange) -> Response:
    """Use other keys, or another endpoint, for the same bucket. The old ones stay in force until the new are proven."""
    return _changed(path, query, _service().requests.set_storage, body.wish())


@api.put("/servers/<group>/<env>/leases/<lease_id>", responses=_answers(200, LeaseView, *_CHANGE))
def put_lease(path: LeasePath, query: OnlyQuery, body: LeasePut) -> Response:
    """Vouch for a server for some time, or renew that."""
    wanted = _caller(), path.group, path.env, path.lease_id, body.wish()
    return _json(lease_view(_service().leases.hold(*wanted, server_id=query.server_id, request_id=g.request_id)))


@api.delete("/servers/<group>/<env>/leases/<lease_id>", responses=_answers(200, LeaseList, *_CHANGE))
def end_lease(path: LeasePath) -> Response:
    """Vouch no longer; the leases that are left. Where there is none, the server is stopped soon, if this lease says so."""
    left = _service().leases.end(_caller(), path.group, path.env, path.lease_id, request_id=g.request_id)
    return _json(LeaseList(leases=[lease_view(each) for each in left]))


@api.post("/servers/<group>/<env>/tickets", responses=_answers(201, TicketView, *_CHANGE))
def create_ticket(path: ServerPath) -> Response:
    """A sign-in ticket for the caller: the browser posts it to the server through the portal. Good once, for 30 seconds."""
    return _made(ticket_view(_service().access.ticket(_caller(), path.group, path.env, request_id=g.request_id)))


@api.get("/servers/<group>/<env>/tokens", responses=_answers(200, TokenList, *_READ))
def list_tokens(path: ServerPath) -> Response:
    """The server's bearer tokens, of all members."""
    found = _service().access.tokens(_caller(), path.group, path.env)
    return _json(TokenList(tokens=[token_view(each) for each in found]))


@api.post("/servers/<group>/<env>/tokens", responses=_answers(201, TokenMade, *_CHANGE))
def create_token(path: ServerPath, body: TokenCreate) -> Response:
    """A bearer token for the caller and this server. Its text is shown this once."""
    access = _service().access
    token, text = access.make_token(_caller(), path.group, path.env, seconds=body.seconds, name=body.name, request_id=g.request_id)
    return _made(TokenMade(token=token_view(token), secret=text.reveal()))


@api.delete("/servers/<group>/<env>/tokens/<token_id>", responses=_answers(200, TokenView, *_CHANGE))
def revoke_token(path: TokenPath) -> Response:
    """End a bearer token now."""
    access = _service().access
    return _json(token_view(access.revoke_token(_caller(), path.group, path.env, path.token_id, request_id=g.request_id)))


@api.get("/operations/<id>", responses=_answers(200, OperationView, *_READ))
def get_operation(path: OperationPath) -> Response:
    """An operation: poll it until it has ended."""
    with _service().registry.reading() as session:
        row = session.get(Operation, path.id)
        server = session.get(Server, row.server_id) if row is not None and row.server_id is not None else None
    if row is None or not _may_see(row, server):
        raise ServiceError("no_such_operation", id=path.id)
    return _json(operation_view(row, g.language))


def _may_see(row: Operation, server: Server | None) -> bool:
    """As its server may be seen. Of one that is gone the row knows no gid: then who asked for it, while in that group."""
    caller = _caller()
    if server is not None:
        return policy.is_visible(caller, server)
    return caller.admin or (row.requested_by == caller.user and caller.group(row.group_name) is not None)


def _presenter(names: list[str], under_way: dict[str, Operation], held: dict[str, list[Lease]]) -> Presenter:
    service, caller = _service(), _caller()
    return Presenter(
        settings=service.settings,
        caller=caller,
        language=g.language,
        groups_now=policy.groups_now(caller, names, service.directory),
        under_way=under_way,
        leases=held,
    )
