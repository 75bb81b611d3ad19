"""The service's API (docs/reference/api.md) in memory, over a real Unix socket, so that the console and mlwf's client run as they are.

An operation ends when somebody asks for it; `stepwise` it moves by one step each time, `paused` it stays. Nothing here waits for a clock.
"""

from __future__ import annotations

import itertools
import os
import re
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from flask import Flask, Response, jsonify, request
from flask.typing import ResponseReturnValue
from werkzeug.serving import BaseWSGIServer, make_server

from backend.api.problems import CONTENT_TYPE, document, standard_members
from backend.domain import ENV_NAME, bucket_name_is_valid
from backend.errors import FAILURES, ServiceError
from backend.i18n import translate
from backend.messages import describe_stored, operation_message
from backend.plans.catalogue import PLANS
from backend.plans.labels import LABELS

STEPS = {kind.value: [step.name for step in plan.steps] for kind, plan in PLANS.items()}
AFTER = {"create": "running", "start": "running", "stop": "stopped", "delete": "deleted", "restore": "running"}
STORE = {"endpoint_url": "https://s3.example.org", "region": "us-east-1", "artifact_access": "proxied"}
NOBODY: dict[str, Any] = {"names": [], "updated_at": None}


def stamp(delta: timedelta = timedelta()) -> str:
    return (datetime.now(UTC) + delta).isoformat()


@dataclass
class FakeService:
    """State and switches. `broken`: every request fails; `wrong_secret`: the one that the probe refuses."""

    socket: Path
    area: Path
    user: str = "alice"
    groups: list[str] = field(default_factory=lambda: ["gaa50000", "gaa50001"])
    servers: dict[str, dict[str, Any]] = field(default_factory=dict)
    operations: dict[str, dict[str, Any]] = field(default_factory=dict)
    tokens: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    received: list[tuple[str, str, Any]] = field(default_factory=list)
    languages: list[str] = field(default_factory=list)
    paused: bool = False
    stepwise: bool = False
    broken: bool = False
    wrong_secret: str = "wrong"
    choices: dict[str, list[str]] = field(
        default_factory=lambda: {"mlflow_version": ["3.17.2"], "size": ["small", "medium"], "artifact_access": ["proxied", "direct"]}
    )
    server: BaseWSGIServer | None = None
    count: Any = field(default_factory=lambda: itertools.count(1))

    def start(self) -> None:
        self.server = make_server(f"unix://{self.socket}", 0, _app(self), threaded=True)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        if self.server:
            self.server.shutdown()
            self.server.server_close()
            self.server = None
        self.socket.unlink(missing_ok=True)

    def add(self, group: str, env_name: str, status: str = "running", **changes: Any) -> dict[str, Any]:
        number = next(self.count)
        port = 21000 + number
        made = {
            "id": f"k3v9x2m7q4{number:02d}",
            "group": group,
            "gid": os.getgid(),
            "env_name": env_name,
            "status": status,
            "desired": "running",
            "reason": None,
            "inside_url": f"http://mlflow01.example.org:{port}/mlflow/",
            "outside_url": f"https://portal.example.org/rnode/mlflow01.example.org/{port}/mlflow/",
            "host": "mlflow01.example.org",
            "port": port,
            "mlflow_version": "3.17.2",
            "size": "small",
            "schema_revision": "abc",
            "idle_seconds": 900,
            "storage": {
                "bucket": "wine-models",
                "prefix": f"mlflow/k3v9x2m7q4{number:02d}",
                **STORE,
                "access_key_id": "AKIAEXAMPLEWXYZ",
                "other_buckets": 3,
            },
            "users": {"names": [self.user], "updated_at": stamp(timedelta(days=-2))},
            "auth_file": str(self.area / group / "aihub" / env_name / "yml" / "basic_auth.yml"),
            "created_by": self.user,
            "created_at": stamp(timedelta(days=-3)),
            "updated_at": stamp(timedelta(days=-2)),
            "status_since": stamp(timedelta(minutes=-42)),
            "upgrades": [],
            "previous": None,
            "deletion": None,
            "operation": None,
            "leases": [],
            "warnings": [],
        } | changes
        self.servers[f"{group}/{env_name}"] = made
        return made

    def begin(self, kind: str, server: dict[str, Any]) -> dict[str, Any]:
        operation = {
            "id": f"op_{next(self.count):016x}",
            "kind": kind,
            "group": server["group"],
            "env_name": server["env_name"],
            "server_id": server["id"],
            "state": "running",
            "requested_by": self.user,
            "request_id": None,
            "created_at": stamp(),
            "finished_at": None,
            "steps": [{"name": name, "state": "pending", "started_at": None, "finished_at": None, "detail": None} for name in STEPS[kind]],
            "error": None,
        }
        self.operations[operation["id"]] = operation
        server["operation"] = operation["id"]
        return operation

    def refusal(self, body: dict[str, Any]) -> ResponseReturnValue | None:
        """What the service says of a create that is not valid."""
        fields = {}
        if not re.fullmatch(ENV_NAME, body["env_name"]):
            fields["env_name"] = "Write 2 to 255 of a-z, 0-9, - and _, a letter or digit first"
        if not bucket_name_is_valid(body["bucket"]):
            fields["bucket"] = "This is no name of a bucket"
        if fields:
            return problem("invalid_request", fields=fields, why="see the fields")
        if f"{body['group']}/{body['env_name']}" in self.servers:
            return problem("server_exists", group=body["group"], env_name=body["env_name"])
        return None

    def advance(self, operation: dict[str, Any]) -> None:
        """One step further: the running one succeeds, the next runs; after the last the server is what was asked for."""
        if operation["state"] != "running":
            return
        steps = operation["steps"]
        running = next((each for each in steps if each["state"] == "running"), None)
        if running and running["name"] == "check_storage" and operation.get("_secret") == self.wrong_secret:
            self._fail(operation, running)
            return
        if running:
            running.update(state="succeeded", finished_at=stamp())
        waiting = next((each for each in steps if each["state"] == "pending"), None)
        if waiting:
            waiting.update(state="running", started_at=stamp())
        else:
            self._finish(operation)

    def _fail(self, operation: dict[str, Any], step: dict[str, Any]) -> None:
        step.update(state="failed", finished_at=stamp())
        operation.update(
            state="failed",
            finished_at=stamp(),
            error={"code": "storage_secret_wrong", "params": {"access_key_id": "AKIAEXAMPLE"}},
        )
        del self.servers[f"{operation['group']}/{operation['env_name']}"]

    def _finish(self, operation: dict[str, Any]) -> None:
        server = next(each for each in self.servers.values() if each["id"] == operation["server_id"])
        server.update(operation=None, updated_at=stamp(), status_since=stamp(), status=AFTER.get(operation["kind"], server["status"]))
        if operation["kind"] == "users":
            server["users"] = {"names": operation["_names"], "updated_at": stamp()}
        if operation["kind"] in {"upgrade", "rollback", "resize"}:
            self._change(operation, server)
        kept = ["database", "settings", "port"]
        server["deletion"] = (
            {"deleted_at": stamp(), "restorable_until": stamp(timedelta(days=14)), "kept": kept} if operation["kind"] == "delete" else None
        )
        operation.update(state="succeeded", finished_at=stamp())

    def _change(self, operation: dict[str, Any], server: dict[str, Any]) -> None:
        before = {"mlflow_version": server["mlflow_version"], "until": stamp(timedelta(days=14))}
        if operation["kind"] == "resize":
            server["size"] = operation["_body"]["size"]
            return
        to = operation["_body"]["mlflow_version"] if operation["kind"] == "upgrade" else server["previous"]["mlflow_version"]
        server.update(mlflow_version=to, previous=before, upgrades=[before["mlflow_version"]] if operation["kind"] == "rollback" else [])

    def add_token(self, server: str, **changes: Any) -> dict[str, Any]:
        """A token of a server (`group/env`), as the API lists it."""
        token = {
            "id": f"t{next(self.count):011d}",
            "name": "",
            "user": self.user,
            "state": "active",
            "created_at": stamp(),
            "expires_at": stamp(timedelta(days=7)),
            "revoked_at": None,
        } | changes
        self.tokens.setdefault(server, []).insert(0, token)
        return token

    def shown(self, server: dict[str, Any]) -> dict[str, Any]:
        everything = ["start", "stop", "delete", "users", "storage", "resize", "upgrade", *(["rollback"] if server["previous"] else [])]
        allowed = [] if server["operation"] else ["restore"] if server["status"] == "deleted" else everything
        warnings = [*server["warnings"]]
        if not server["users"]["names"] and server["status"] != "deleted":
            warnings.append({"code": "no_users", "params": {"auth_file": server["auth_file"]}})
        return server | {
            "allowed": allowed,
            "warnings": [self.told(each) for each in warnings],
            "reason": self.told(server["reason"]),
        }

    def shown_operation(self, operation: dict[str, Any]) -> dict[str, Any]:
        language = self.languages[-1]
        labels = [{**step, "label": translate(LABELS[step["name"]], language)} for step in operation["steps"]]
        message = operation_message(operation["kind"], operation["state"], language)
        public = {key: value for key, value in operation.items() if not key.startswith("_")}
        error = self.told(operation["error"])
        error = error and {**error, **standard_members(error["code"], language)}
        return public | {"steps": labels, "message": message, "error": error}

    def told(self, stored: dict[str, Any] | None) -> dict[str, Any] | None:
        """A code with its parameters in the service's own words; what has words already stays."""
        return stored if stored is None or "detail" in stored else describe_stored(stored, self.languages[-1])


def problem(code: str, *, fields: dict[str, str] | None = None, **params: object) -> ResponseReturnValue:
    """A problem document in the service's own words."""
    language = request.headers.get("Accept-Language") or "en"
    answer = jsonify(document(ServiceError(code, **params), language, request_id=request.headers.get("X-Request-Id"), fields=fields))
    answer.mimetype = CONTENT_TYPE
    return answer, FAILURES[code].status


def _app(fake: FakeService) -> Flask:
    app = Flask("fake_service")

    @app.before_request
    def note() -> ResponseReturnValue | None:
        fake.languages.append(request.headers.get("Accept-Language", ""))
        if request.method != "GET":
            fake.received.append((request.method, request.path, request.get_json(silent=True)))
        if fake.broken:
            return problem("internal", request_id=7)
        group, env = (request.view_args or {}).get("group"), (request.view_args or {}).get("env")
        found, meant = fake.servers.get(f"{group}/{env}"), request.args.get("server_id")
        if found and meant and found["id"] != meant and (request.view_args or {}).get("change") != "restore":
            return problem("server_replaced", group=group, env_name=env)
        return None

    _reading(app, fake)
    _changing(app, fake)
    _signing_in(app, fake)
    _tokens(app, fake)
    return app


def _reading(app: Flask, fake: FakeService) -> None:
    @app.get("/api/v1/me")
    def me() -> Response:
        return jsonify(
            user=fake.user,
            uid=1001,
            admin=False,
            groups=[{"name": name, "gid": 20001 + at, "may_create": True} for at, name in enumerate(fake.groups)],
            defaults={**STORE, "mlflow_version": "3.17.2", "size": "small", "idle_seconds": 900},
            choices=fake.choices,
            sizes=[
                {
                    "name": name,
                    "memory": n * 2**30,
                    "cpus": n,
                    "pids": 256,
                    "workers": n,
                    "log": n << 20,
                    "genai_jobs": n > 1,
                    "gateway": n > 1,
                    "gateway_private": False,
                }
                for n, name in ((1, "small"), (2, "medium"))
            ],
            endpoint_url_fixed=False,
            group_area=str(fake.area),
            restore_days=14,
            previous_days=14,
            runtime={"name": "docker", "isolates": True},
        )

    @app.get("/api/v1/servers")
    def servers() -> Response:
        deleted = request.args.get("deleted") == "true"
        return jsonify(servers=[fake.shown(each) for each in fake.servers.values() if deleted or each["status"] != "deleted"])

    @app.get("/api/v1/servers/<group>/<env>")
    def server(group: str, env: str) -> ResponseReturnValue:
        found = fake.servers.get(f"{group}/{env}")
        return jsonify(fake.shown(found)) if found else _no_such_server(group, env)

    @app.get("/api/v1/operations/<name>")
    def operation(name: str) -> ResponseReturnValue:
        if not re.fullmatch(r"op_[0-9a-f]{16}", name):
            return problem("invalid_request", fields={"id": "Not an operation's id"}, why="id")
        found = fake.operations.get(name)
        if not found:
            return problem("no_such_operation", id=name)
        while not fake.paused and found["state"] == "running":
            fake.advance(found)
            if fake.stepwise:
                break
        return jsonify(fake.shown_operation(found))


def _changing(app: Flask, fake: FakeService) -> None:
    def accept(kind: str, server: dict[str, Any], **private: Any) -> ResponseReturnValue:
        operation = fake.begin(kind, server)
        operation["request_id"] = request.headers.get("X-Request-Id")
        operation.update(private)
        return jsonify(fake.shown_operation(operation)), 202

    @app.post("/api/v1/servers")
    def create() -> ResponseReturnValue:
        body = request.get_json()
        if refused := fake.refusal(body):
            return refused
        server = fake.add(body["group"], body["env_name"], "creating", users=NOBODY)
        server["storage"]["bucket"] = body["bucket"]
        return accept("create", server, _secret=body["secret_access_key"])

    @app.post("/api/v1/servers/<group>/<env>/<change>")
    @app.delete("/api/v1/servers/<group>/<env>", defaults={"change": "delete"})
    def change(group: str, env: str, change: str) -> ResponseReturnValue:
        by_id = {each["id"]: each for each in fake.servers.values()}
        found = by_id.get(request.args.get("server_id", ""), fake.servers.get(f"{group}/{env}"))
        if not found:
            return _no_such_server(group, env)
        if change == "delete":
            found["status"] = "deleting"
        return accept(change, found, _body=request.get_json(silent=True))

    @app.put("/api/v1/servers/<group>/<env>/<what>")
    def put(group: str, env: str, what: str) -> ResponseReturnValue:
        found = fake.servers.get(f"{group}/{env}")
        if not found:
            return _no_such_server(group, env)
        body = request.get_json()
        names = [each["user_name"] for each in body.get("users", [])]
        return accept("resize" if what == "size" else what, found, _names=names, _body=body)


def _signing_in(app: Flask, fake: FakeService) -> None:
    @app.post("/api/v1/servers/<group>/<env>/tickets")
    def ticket(group: str, env: str) -> ResponseReturnValue:
        found = fake.servers.get(f"{group}/{env}")
        if not found:
            return _no_such_server(group, env)
        if found["status"] not in {"running", "sleeping"}:
            return problem("server_not_up", env_name=env, status=found["status"])
        if not found["users"]["names"]:
            return problem("auth_info_missing", env_name=env)
        text = f"t1.ticket-{next(fake.count)}.mac"
        where = f"{found['outside_url']}-/sign-in"
        return jsonify(ticket=text, user=fake.user, expires_at=stamp(timedelta(seconds=30)), sign_in_url=where), 201


def _tokens(app: Flask, fake: FakeService) -> None:
    @app.get("/api/v1/servers/<group>/<env>/tokens")
    def tokens(group: str, env: str) -> Response:
        return jsonify(tokens=fake.tokens.get(f"{group}/{env}", []))

    @app.post("/api/v1/servers/<group>/<env>/tokens")
    def create_token(group: str, env: str) -> ResponseReturnValue:
        body = request.get_json()
        if body["seconds"] > 30 * 86400:
            return problem("token_too_long", days=30)
        until = stamp(timedelta(seconds=body["seconds"]))
        token = fake.add_token(f"{group}/{env}", name=body["name"], state="pending", expires_at=until)
        return jsonify(token=token, secret=f"aihub_{token['id']}_text-of-the-token"), 201

    @app.delete("/api/v1/servers/<group>/<env>/tokens/<token_id>")
    def revoke(group: str, env: str, token_id: str) -> ResponseReturnValue:
        (found,) = (each for each in fake.tokens[f"{group}/{env}"] if each["id"] == token_id)
        if found["user"] not in {fake.user, "carol"}:
            return problem("token_of_other", id=token_id, user=found["user"])
        found.update(state="revoked", revoked_at=stamp())
        return jsonify(found)


def _no_such_server(group: str, env: str) -> ResponseReturnValue:
    return problem("no_such_server", group=group, env_name=env)
