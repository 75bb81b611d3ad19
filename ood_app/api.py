"""The page's JSON: each route asks the service once or twice and answers at once; the page polls."""

from __future__ import annotations

from typing import Any, Final, cast

from flask import Blueprint, current_app, g, jsonify, request
from flask.typing import ResponseReturnValue
from mlwf.answers import Operation
from mlwf.client import Client, ServiceError

from ood_app import caller, jobs
from ood_app.form import create_request, storage_request
from ood_app.problems import Problem
from ood_app.settings import Settings
from ood_app.texts import _
from ood_app.view import me_view, operation_view, server_view, token_view

api: Final = Blueprint("api", __name__, url_prefix="/api")
CHANGES: Final = ("start", "stop", "restore")
MOST_OPERATIONS: Final = 8


def service() -> Client:
    """The service, asked in the reader's language; one connection for one request."""
    if "service" not in g:
        g.service = current_app.extensions["aihub_service"](g.language)
        g.service.request_id = g.request_id
    return cast("Client", g.service)


def settings() -> Settings:
    return cast("Settings", current_app.extensions["aihub_settings"])


@api.teardown_request
def close(_error: BaseException | None) -> None:
    found = g.pop("service", None)
    if found is not None:
        found.close()


@api.get("/me")
def me() -> ResponseReturnValue:
    """Who the caller is and what the form offers."""
    return jsonify(me_view(service().me(), caller.group_change(), settings()))


@api.get("/profiles")
def profiles() -> ResponseReturnValue:
    """The names of the caller's AWS profiles; never their keys."""
    return jsonify(profiles=caller.profiles())


@api.get("/state")
def state() -> ResponseReturnValue:
    """All servers, the operations under way and those that the page asks for (`?op=`)."""
    # Operations first: one that has ended is then never shown beside the server's state from before its end.
    wanted = request.args.getlist("op")[:MOST_OPERATIONS]
    here = [each for each in wanted if jobs.is_job(each)]
    asked = {each: _operation(each) for each in wanted if each not in here}
    servers = service().servers(deleted=True)
    others = [each.operation for each in servers if each.operation and each.operation not in asked]
    found = [*asked.values(), *map(_operation, others[:MOST_OPERATIONS])]
    return jsonify(
        servers=[server_view(each, settings()) for each in servers],
        operations=[*(operation_view(each) for each in found if each), *(each for each in map(jobs.view, here) if each)],
    )


def _operation(identifier: str) -> Operation | None:
    """An operation, or None once the service knows it no longer."""
    try:
        return service().operation(identifier)
    except ServiceError as error:
        if error.status in {404, 422}:  # forgotten, or no id at all: the page may send what it kept from another day
            return None
        raise


@api.post("/servers")
def create() -> ResponseReturnValue:
    wanted = create_request(_body())
    return _accepted(service().create(**wanted))


@api.post("/jobs")
def start_job() -> ResponseReturnValue:
    """Export model or Create image on this host."""
    return jsonify(jobs.start(_body(), settings())), 202


@api.post("/servers/<group>/<env>/upgrade")
def upgrade(group: str, env: str) -> ResponseReturnValue:
    """Another MLflow, one of the server's `upgrades`."""
    return _accepted(service().upgrade(group, env, str(_body().get("mlflow_version", "")), server_id=_meant()))


@api.post("/servers/<group>/<env>/rollback")
def rollback(group: str, env: str) -> ResponseReturnValue:
    """To the version that the page named: somebody else may have rolled back meanwhile, and the next one would take that back."""
    return _accepted(service().rollback(group, env, to=_named("mlflow_version"), server_id=_meant()))


@api.put("/servers/<group>/<env>/size")
def resize(group: str, env: str) -> ResponseReturnValue:
    """Another size, one of the caller's choices."""
    return _accepted(service().resize(group, env, str(_body().get("size", "")), server_id=_meant()))


@api.get("/servers/<group>/<env>/tokens")
def tokens(group: str, env: str) -> ResponseReturnValue:
    """All members' bearer tokens of the server; never their text."""
    return jsonify(tokens=[token_view(each) for each in service().tokens(group, env)])


@api.delete("/servers/<group>/<env>/tokens/<token_id>")
def revoke_token(group: str, env: str, token_id: str) -> ResponseReturnValue:
    return jsonify(token_view(service().revoke_token(group, env, token_id)))


@api.post("/servers/<group>/<env>/<change>")
def change(group: str, env: str, change: str) -> ResponseReturnValue:
    if change not in CHANGES:
        raise Problem(404, "no_such_path", _("The console has no such action: {change}.").format(change=change), _("Reload the page."))
    return _accepted(getattr(service(), change)(group, env, server_id=_meant()))


@api.delete("/servers/<group>/<env>")
def delete(group: str, env: str) -> ResponseReturnValue:
    """Deletes a server. The name that the user typed comes along and is compared here too."""
    if _body().get("typed") != env:
        text = _("The typed name is not {env}, so nothing was deleted.").format(env=env)
        raise Problem(422, "name_differs", text, _("Type the env_name exactly."), fields={"typed": text})
    return _accepted(service().delete(group, env, server_id=_meant()))


@api.put("/servers/<group>/<env>/storage")
def storage(group: str, env: str) -> ResponseReturnValue:
    """Gives the server another key pair."""
    pair = storage_request(_body())
    key_id, secret = pair.access_key_id, pair.secret_access_key
    return _accepted(service().set_storage(group, env, access_key_id=key_id, secret_access_key=secret, server_id=_meant()))


@api.post("/servers/<group>/<env>/auth")
def register(group: str, env: str) -> ResponseReturnValue:
    """Auth Info Registration: reads the auth file as the caller and gives its users to the service."""
    path = service().server(group, env).auth_file
    operation = service().set_users(group, env, caller.read_users(path), server_id=_meant())
    return jsonify({**operation_view(operation), "notice": _exposed(path)}), 202


@api.post("/servers/<group>/<env>/auth-file")
def create_auth_file(group: str, env: str) -> ResponseReturnValue:
    """Writes the auth file as the caller, with a generated password that stays in the file."""
    server = service().server(group, env)
    user = service().me().user
    caller.create_auth_file(server.auth_file, user, server.gid)
    return jsonify(path=server.auth_file, user_name=user), 201


def _exposed(path: str) -> dict[str, str] | None:
    """A word about an auth file that everybody may read."""
    if not caller.open_to_all(path):
        return None
    return {
        "detail": _("Everybody on the system can read {path}.").format(path=path),
        "cure": _("Run chmod o= on it, change the password in it and register it again."),
    }


def _accepted(operation: Operation) -> ResponseReturnValue:
    return jsonify(operation_view(operation)), 202


def _meant() -> str | None:
    """The id of the server whose row was pressed. Others have had its name, or another one has it by now."""
    return _named("server_id")


def _named(name: str) -> str | None:
    """What a page says; one of before an upgrade says nothing."""
    return str(_body().get(name) or "") or None


def _body() -> dict[str, Any]:
    body = request.get_json(silent=True)
    if not isinstance(body, dict):
        raise Problem(400, "not_json", _("The request is not a JSON object."), _("Reload the page."))
    return body
