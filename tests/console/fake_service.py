"""The service's API (docs/reference/api.md) in memory, over a real Unix socket, so that the console and mlwf's client run as they are.

An operation ends when somebody asks for it; `stepwise` it moves by one step each time, `paused` it stays. Nothing here waits for a clock.
"""

from __future__ import annotations

import itertools
import re
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from flask import Flask, Response, jsonify, request
from flask.typing import ResponseReturnValue
from werkzeug.serving import BaseWSGIServer, make_server

from backend.domain import ENV_NAME, bucket_name_is_valid

STEPS = {
    "create": [
        ("check_storage", "Check the bucket and the key", "バケットとキーを確認"),
        ("reserve_port", "Reserve a port", "ポートを確保"),
        ("start_box", "Start the tracking server", "Tracking Serverを起動"),
        ("wait_ready", "Wait until it answers", "応答を確認"),
    ],
    "delete": [
        ("snapshot", "Keep a copy of the database", "データベースを退避"),
        ("stop_box", "Stop the tracking server", "Tracking Serverを停止"),
    ],
}
DONE = {"create": "Service created", "delete": "Service deleted", "start": "Service started", "stop": "Service stopped"}
AFTER = {"create": "running", "start": "running", "stop": "stopped", "delete": "deleted", "restore": "running"}


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
    received: list[tuple[str, str, Any]] = field(default_factory=list)
    languages: list[str] = field(default_factory=list)
    paused: bool = False
    stepwise: bool = False
    broken: bool = False
    wrong_secret: str = "wrong"
    choices: dict[str, list[str]] = field(default_factory=lambda: {"mlflow_version": ["3.17.2"], "artifact_access": ["proxied", "direct"]})
    server: BaseWSGIServer | None = None
    count: Any = field(default_factory=lambda: itertools.count(1))

    def start(self) -> None:
        self.server = make_server(f"unix://{self.socket}", 0, _app(self), threaded=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

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
            "gid": 20001,
            "env_name": env_name,
            "status": status,
            "desired": "running",
            "reason": None,
            "inside_url": f"http://mlflow01.example.org:{port}/mlflow/",
            "outside_url": f"https://portal.example.org/rnode/mlflow01.example.org/{port}/mlflow/",
            "host": "mlflow01.example.org",
            "port": port,
            "mlflow_version": "3.17.2",
            "schema_revision": "abc",
            "storage": {
                "bucket": "wine-models",
                "prefix": f"mlflow/k3v9x2m7q4{number:02d}",
                "endpoint_url": "https://s3.example.org",
                "region": "us-east-1",
                "artifact_access": "proxied",
                "access_key_id": "AKIAEXAMPLEWXYZ",
                "other_buckets": 3,
            },
            "users": {"names": [], "updated_at": None},
            "auth_file": str(self.area / group / "aihub" / env_name / "yml" / "basic_auth.yml"),
            "created_by": self.user,
            "created_at": stamp(timedelta(days=-3)),
            "updated_at": stamp(timedelta(minutes=-42)),
            "deletion": None,
            "operation": None,
            "warnings": [],
        } | changes
        self.servers[f"{group}/{env_name}"] = made
        return made

    def begin(self, kind: str, server: dict[str, Any]) -> dict[str, Any]:
        language = self.languages[-1] if self.languages else "en"
        steps = STEPS.get(kind, [("apply", f"Apply: {kind}", f"適用: {kind}")])
        operation = {
            "id": f"op_{next(self.count):016d}",
            "kind": kind,
            "group": server["group"],
            "env_name": server["env_name"],
            "server_id": server["id"],
            "state": "running",
            "requested_by": self.user,
            "created_at": stamp(),
            "finished_at": None,
            "message": "サービスを変更しています …" if language == "ja" else "Changing the service …",
            "steps": [
                {
                    "name": name,
                    "label": ja if language == "ja" else en,
                    "state": "pending",
                    "started_at": None,
                    "finished_at": None,
                    "detail": None,
                }
                for name, en, ja in steps
            ],
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
            return problem(422, "invalid_request", "The request is not valid", "Correct the fields that are named.", **fields)
        if f"{body['group']}/{body['env_name']}" in self.servers:
            return problem(409, "server_exists", "There is one already", "Choose another env_name.", env_name="There is one of this name")
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
            error={
                "code": "storage_secret_wrong",
                "detail": "The secret access key does not belong to the access key AKIA",
                "cure": "Type or choose the secret again.",
            },
        )
        del self.servers[f"{operation['group']}/{operation['env_name']}"]

    def _finish(self, operation: dict[str, Any]) -> None:
        server = self.servers[f"{operation['group']}/{operation['env_name']}"]
        server.update(operation=None, updated_at=stamp(), status=AFTER.get(operation["kind"], server["status"]))
        if operation["kind"] == "users":
            server["users"] = {"names": operation["_names"], "updated_at": stamp()}
        kept = ["database", "settings", "port"]
        server["deletion"] = (
            {"deleted_at": stamp(), "restorable_until": stamp(timedelta(days=14)), "kept": kept} if operation["kind"] == "delete" else None
        )
        operation.update(state="succeeded", finished_at=stamp(), message=DONE.get(operation["kind"], "Done"))

    def shown(self, server: dict[str, Any]) -> dict[str, Any]:
        allowed = {
            "running": ["stop", "delete", "users", "storage"],
            "sleeping": ["stop", "delete", "users", "storage"],
            "stopped": ["start", "delete", "users", "storage"],
            "failed": ["start", "stop", "delete", "users", "storage"],
            "deleted": ["restore"],
        }
        return server | {"allowed": [] if server["operation"] else allowed.get(server["status"], [])}


def problem(status: int, code: str, detail: str, cure: str, **fields: str) -> ResponseReturnValue:
    body = {"type": f"urn:aihub:{code}", "title": code, "status": status, "detail": detail, "cure": cure, "code": code}
    answer = jsonify(body | ({"fields": fields} if fields else {}))
    answer.mimetype = "application/problem+json"
    return answer, status


def _app(fake: FakeService) -> Flask:
    app = Flask("fake_service")

    @app.before_request
    def note() -> ResponseReturnValue | None:
        fake.languages.append(request.headers.get("Accept-Language", ""))
        if request.method != "GET":
            fake.received.append((request.method, request.path, request.get_json(silent=True)))
        if fake.broken:
            return problem(500, "internal", "The service failed on its own account (request 7)", "Give the admins that request id.")
        return None

    _reading(app, fake)
    _changing(app, fake)
    return app


def _reading(app: Flask, fake: FakeService) -> None:
    @app.get("/api/v1/me")
    def me() -> Response:
        return jsonify(
            user=fake.user,
            uid=1001,
            admin=False,
            groups=[{"name": name, "gid": 20001 + at, "may_create": True} for at, name in enumerate(fake.groups)],
            defaults={
                "endpoint_url": "https://s3.example.org",
                "region": "us-east-1",
                "artifact_access": "proxied",
                "mlflow_version": "3.17.2",
                "idle_seconds": 900,
            },
            choices=fake.choices,
            endpoint_url_fixed=False,
            group_area=str(fake.area),
            restore_days=14,
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
        found = fake.operations.get(name)
        if not found:
            return problem(404, "no_such_operation", "There is no operation", "Look at the server itself.")
        while not fake.paused and found["state"] == "running":
            fake.advance(found)
            if fake.stepwise:
                break
        return jsonify({key: value for key, value in found.items() if not key.startswith("_")})


def _changing(app: Flask, fake: FakeService) -> None:
    def accept(kind: str, server: dict[str, Any], **private: Any) -> ResponseReturnValue:
        operation = fake.begin(kind, server)
        operation.update(private)
        return jsonify({key: value for key, value in operation.items() if not key.startswith("_")}), 202

    @app.post("/api/v1/servers")
    def create() -> ResponseReturnValue:
        body = request.get_json()
        if refused := fake.refusal(body):
            return refused
        server = fake.add(body["group"], body["env_name"], "creating")
        server["storage"]["bucket"] = body["bucket"]
        return accept("create", server, _secret=body["secret_access_key"])

    @app.post("/api/v1/servers/<group>/<env>/<change>")
    @app.delete("/api/v1/servers/<group>/<env>", defaults={"change": "delete"})
    def change(group: str, env: str, change: str) -> ResponseReturnValue:
        found = fake.servers.get(f"{group}/{env}")
        if not found:
            return _no_such_server(group, env)
        if change == "delete":
            found["status"] = "deleting"
        return accept(change, found)

    @app.put("/api/v1/servers/<group>/<env>/<what>")
    def put(group: str, env: str, what: str) -> ResponseReturnValue:
        found = fake.servers.get(f"{group}/{env}")
        if not found:
            return _no_such_server(group, env)
        names = [each["user_name"] for each in request.get_json().get("users", [])]
        return accept(what, found, _names=names)


def _no_such_server(group: str, env: str) -> ResponseReturnValue:
    return problem(404, "no_such_server", f"There is no tracking server {env} in group {group} that you can see", "Look at the list.")
