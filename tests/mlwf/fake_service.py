"""The service's API (docs/reference/api.md) on a real Unix socket, with servers in memory: enough for the client and the command line."""

import copy
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

from backend import __version__

Json = dict[str, Any]
Handler = Callable[["FakeService", Request, list[str]], tuple[int, Json]]


class _Quiet(WSGIRequestHandler):
    def log(self, *args: Any) -> None:
        pass

    def address_string(self) -> str:
        return "unix"  # the peer of a Unix socket has no address


def server_json(group: str, env: str, auth_file: str) -> Json:
    return {
        "id": "k3v9x2m7q4ab",
        "group": group,
        "gid": os.getgid(),
        "env_name": env,
        "status": "running",
        "desired": "running",
        "reason": None,
        "inside_url": "http://mlflow01:21000/mlflow/",
        "outside_url": None,
        "host": "mlflow01",
        "port": 21000,
        "mlflow_version": "3.17.2",
        "schema_revision": "x",
        "idle_seconds": 900,
        "size": "small",
        "storage": {
            "bucket": "b",
            "prefix": "mlflow/k3",
            "endpoint_url": "https://s3",
            "region": "us-east-1",
            "artifact_access": "direct",
            "access_key_id": "AKIA",
            "other_buckets": None,
        },
        "users": {"names": [], "updated_at": None},
        "auth_file": auth_file,
        "created_by": "alice",
        "created_at": "2026-11-24T09:00:00+00:00",
        "updated_at": "2026-11-24T09:00:00+00:00",
        "status_since": "2026-11-24T09:00:00+00:00",
        "upgrades": [],
        "previous": None,
        "deletion": None,
        "operation": None,
        "leases": [],
        "warnings": [{"code": "former_member", "detail": "A former member knows the password", "cure": "Update Auth Info."}],
        "allowed": ["start"],
        "a_field_of_the_future": {"x": 1},
    }


def me_json() -> Json:
    groups = [{"name": "gaa50000", "gid": 20001, "may_create": True}, {"name": "other", "gid": 2, "may_create": False}]
    size = {"name": "small", "memory": 1 << 30, "cpus": 1, "pids": 256, "workers": 1, "log": 1 << 20}
    defaults = {"endpoint_url": None, "region": "us-east-1", "artifact_access": "proxied", "mlflow_version": "3.17.2", "size": "small"}
    return {
        "user": "alice",
        "uid": 1001,
        "admin": False,
        "groups": groups,
        "defaults": {**defaults, "idle_seconds": 900},
        "choices": {"mlflow_version": ["3.17.2"], "size": ["small"], "artifact_access": ["proxied", "direct"]},
        "sizes": [{**size, "genai_jobs": False, "gateway": False, "gateway_private": False}],
        "endpoint_url_fixed": False,
        "group_area": "/groups",
        "restore_days": 14,
        "previous_days": 14,
        "runtime": {"name": "process", "isolates": False},
        "a_field_of_the_future": [],
    }


class FakeService:
    """`requests` records (method, path, body, headers). `headers`: of every answer, too. `refuse`: what every request is answered
    instead; `refuse_next`: what the next ones are, in order (None: as usual). `status_of`: what a start and a stop lead to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "service.sock"
        self.requests: list[tuple[str, str, Any, dict[str, str]]] = []
        self.servers: dict[str, Json] = {}
        self.tokens: list[Json] = []
        self.token_state = "active"
        self.polls = 0
        self.headers: dict[str, str] = {}
        self.error: Json | None = None
        self.refuse: tuple[int, Json | str] | None = None
        self.refuse_next: list[tuple[int, Json | str] | None] = []
        self.status_of = {"start": "running", "stop": "stopped"}
        self._server: BaseWSGIServer = make_server(f"unix://{self.socket}", 0, self._app, request_handler=_Quiet)
        self._server.socket.listen(16)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    @property
    def address(self) -> str:
        return f"unix://{self.socket}"

    def add(self, group: str, env: str) -> Json:
        self.servers[f"{group}/{env}"] = server_json(group, env, str(self.folder / group / "aihub" / env / "yml" / "basic_auth.yml"))
        return self.servers[f"{group}/{env}"]

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        shutil.rmtree(self.folder)

    def _app(self, environ: Any, start: Any) -> Any:
        request = Request(environ)
        body = request.get_json() if request.get_data() else None
        self.requests.append((request.method, environ["REQUEST_URI"], body, dict(request.headers)))
        status, answer = (self.refuse_next.pop(0) if self.refuse_next else self.refuse) or self._answer(request, body)
        kind = "application/problem+json" if status >= 400 else "application/json"
        text = answer if isinstance(answer, str) else json.dumps(answer)
        response = Response(text, status=status, content_type=kind)
        return response(environ, lambda line, headers: start(line, [*headers, *self.headers.items()]))

    def _answer(self, request: Request, body: Any) -> tuple[int, Json]:
        parts = request.path.removeprefix("/api/v1/").split("/")
        key = "/".join(parts[1:3])
        if request.args.get("server_id") not in {None, self.servers.get(key, {}).get("id")}:
            return 404, {"status": 404, "code": "server_replaced", "detail": "It is another one by now.", "cure": "Look."}
        if parts[0] == "operations":
            return 200, self._operation("create", key, self.polls + 1)
        if len(parts) > 3 and parts[3] in {"tokens", "tickets"}:
            return self._access(request.method, parts[3:], body)
        if len(parts) > 4 and parts[3] == "leases":
            return self._lease(request.method, key, parts[4], body)
        if request.method != "GET":
            return self._change(request.method, parts, key, body)
        return self._look(parts, key)

    def _look(self, parts: list[str], key: str) -> tuple[int, Json]:
        if parts == ["health"]:
            return 200, {"status": "ok", "version": __version__, "reconciler": {"seen_at": None, "ok": True}}
        if parts == ["me"]:
            return 200, me_json()
        if parts == ["servers"]:
            return 200, {"servers": list(self.servers.values())}
        if key in self.servers:
            return 200, self.servers[key]
        return 404, {
            "type": "x",
            "title": "t",
            "status": 404,
            "code": "no_such_server",
            "detail": f"There is no {key}.",
            "cure": "Create it.",
        }

    def _change(self, method: str, parts: list[str], key: str, body: Any) -> tuple[int, Json]:
        kind = parts[3] if len(parts) > 3 else {"POST": "create", "DELETE": "delete"}[method]
        if kind == "create":
            key = f"{body['group']}/{body['env_name']}"
            self.add(body["group"], body["env_name"])
        if kind in self.status_of and key in self.servers:
            self.servers[key]["status"] = self.status_of[kind]
        if kind == "upgrade":
            previous = {"mlflow_version": self.servers[key]["mlflow_version"], "until": "2026-12-08T09:00:00+00:00"}
            self.servers[key] |= {"mlflow_version": body["mlflow_version"], "upgrades": [], "previous": previous}
        if kind == "delete":
            until = {"deleted_at": "2026-11-24T09:00:00+00:00", "restorable_until": "2026-12-08T09:00:00+00:00", "kept": ["database"]}
            self.servers[key] |= {"status": "deleted", "deletion": until}
        return 202, self._operation(kind, key, 0)

    def _access(self, method: str, rest: list[str], body: Any) -> tuple[int, Json]:
        """Tokens are pending until they were listed once."""
        if rest == ["tickets"]:
            where = "https://portal.example.org/rnode/mlflow01/21000/mlflow/-/sign-in"
            return 201, {"ticket": "t1.x.y", "user": "alice", "expires_at": "2026-11-24T09:00:30+00:00", "sign_in_url": where}
        if method == "POST":
            name = f"token{len(self.tokens):07}"
            times = {"created_at": "2026-11-24T09:00:00+00:00", "expires_at": "2026-11-25T09:00:00+00:00", "revoked_at": None}
            made = {"id": name, "user": "alice", "name": body["name"], "state": "pending", **times}
            self.tokens.insert(0, made)
            return 201, {"token": {**made}, "secret": f"aihub_{name}_text"}
        if method == "DELETE":
            found = next(each for each in self.tokens if each["id"] == rest[1])
            found |= {"state": "revoked", "revoked_at": "2026-11-24T09:30:00+00:00"}
            return 200, found
        for each in self.tokens:
            each["state"] = self.token_state if each["state"] == "pending" else each["state"]
        return 200, {"tokens": self.tokens}

    def _lease(self, method: str, key: str, lease_id: str, body: Any) -> tuple[int, Json]:
        if key not in self.servers:
            return 404, {"type": "x", "title": "t", "status": 404, "code": "no_such_server", "detail": "There is none", "cure": "Look."}
        leases = self.servers[key].setdefault("leases", [])
        leases[:] = [each for each in leases if each["id"] != lease_id]
        if method == "DELETE":
            return 200, {"leases": leases}
        lease = {"id": lease_id, "user": "alice", "until": "2026-11-24T10:00:00+00:00", "created_at": "2026-11-24T09:00:00+00:00"}
        leases.append({**lease, "at_end": body["at_end"], "note": body["note"]})
        return 200, leases[-1]

    def _operation(self, kind: str, key: str, poll: int) -> Json:
        """Pending, then its first step runs, then all is done (or failed, where `error` says so)."""
        self.polls = poll
        group, _slash, env = key.partition("/")
        state = ("pending", "running", "failed" if self.error else "succeeded")[min(poll, 2)]
        at = {"started_at": "2026-11-24T09:00:00+00:00", "finished_at": None}
        steps = [{"name": "check_storage", "label": "Check the bucket and the key", "state": state, "detail": None, **at}] if poll else []
        operation = {"id": "op_1", "kind": kind, "group": group, "env_name": env, "state": state, "requested_by": "alice", "steps": steps}
        operation |= {"server_id": None, "request_id": None, "created_at": at["started_at"], "finished_at": None}
        return operation | {"message": "Service created", "error": copy.deepcopy(self.error) if state == "failed" else None}


def start_fake_service() -> FakeService:
    return FakeService(Path(tempfile.mkdtemp(prefix="mlwf-", dir="/tmp")))
