"""A service without reconciler, over a fake user directory: what the edge's tests stand on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from flask.testing import FlaskClient

from backend.api.app import create_app
from backend.api.identity import Body
from backend.api.service import Service
from backend.domain import Caller, Group, OperationState, Status
from backend.errors import ServiceError
from backend.ports import Directory
from backend.registry.database import Registry
from backend.registry.keyring import Keyring
from backend.registry.models import Operation, Server, now
from backend.settings import Settings
from backend.wishes.access import Access
from backend.wishes.changes import Requests
from backend.wishes.kick import Kick
from backend.wishes.leases import Leases
from backend.wishes.passwords import Hasher

GROUP = Group(name="gaa50000", gid=20001)
OTHER = Group(name="gbb60000", gid=20002)
ALICE = Caller(user="alice", uid=1001, groups=(GROUP,))
BOB = Caller(user="bob", uid=1002, groups=(OTHER,))
ADMIN = Caller(user="root", uid=0, groups=(), admin=True)
BODY: dict[str, Any] = {
    "group": GROUP.name,
    "env_name": "wine",
    "bucket": "wine-bucket",
    "access_key_id": "AKEXAMPLEKEYID01",
    "secret_access_key": "the-secret-key-of-the-test",
}


@dataclass
class FakeDirectory:
    """Users and groups as a test says; ``broken`` makes every question fail as NSS would."""

    callers: dict[int, Caller] = field(default_factory=lambda: {each.uid: each for each in (ALICE, BOB, ADMIN)})
    groups: dict[str, Group] = field(default_factory=lambda: {each.name: each for each in (GROUP, OTHER)})
    broken: bool = False
    asked: list[str] = field(default_factory=list)

    def _answer(self, question: str) -> None:
        self.asked.append(question)
        if self.broken:
            raise ServiceError("directory_failed", why="connection refused")

    def caller(self, *, uid: int) -> Caller:
        self._answer("caller")
        if uid not in self.callers:
            raise ServiceError("caller_unknown", uid=uid)
        return self.callers[uid]

    def uid_of(self, *, user: str) -> int | None:
        self._answer("uid_of")
        return next((uid for uid, each in self.callers.items() if each.user == user), None)

    def group(self, *, name: str) -> Group | None:
        self._answer("group")
        return self.groups.get(name)

    def is_member(self, *, user: str, gid: int) -> bool:
        self._answer("is_member")
        return any(each.user == user and any(group.gid == gid for group in each.groups) for each in self.callers.values())

    def members(self, *, group: Group) -> Sequence[str]:
        self._answer("members")
        return [each.user for each in self.callers.values() if group in each.groups]


@dataclass
class FakeIdentity:
    """Whoever the test says."""

    current: int = ALICE.uid
    scheme: str = "test"

    def caller(self, environ: Mapping[str, Any], body: Body, directory: Directory) -> Caller:
        return directory.caller(uid=self.current)


@dataclass
class World:
    """The service, whom it takes the caller for, and shortcuts to the registry."""

    service: Service
    directory: FakeDirectory
    identity: FakeIdentity
    client: FlaskClient

    @property
    def registry(self) -> Registry:
        return self.service.registry

    def be(self, caller: Caller) -> None:
        self.directory.callers[caller.uid] = caller
        self.identity.current = caller.uid

    def create(self, **changes: Any) -> dict[str, Any]:
        answer = self.client.post("/api/v1/servers", json={**BODY, **changes})
        assert answer.status_code == 202, answer.text
        assert isinstance(answer.json, dict)
        found: dict[str, Any] = answer.json
        return found

    def finish(self, operation_id: str, *, status: Status = Status.RUNNING, **row: Any) -> None:
        """What the reconciler would say at the end of an operation."""
        with self.registry.session() as session:
            operation = session.get_one(Operation, operation_id)
            operation.state, operation.finished_at, operation.payload = OperationState.SUCCEEDED, now(), None
            server = session.get_one(Server, operation.server_id)
            server.status = status
            for name, value in row.items():
                setattr(server, name, value)

    def made(self, *, users: Sequence[str] = (), **changes: Any) -> str:
        """A server that runs, with these users; its id."""
        operation = self.create(**changes)
        self.finish(operation["id"], users=[{"name": name, "bcrypt": "$2b$04$"} for name in users])
        return str(operation["server_id"])

    def row(self, server_id: str) -> Server:
        with self.registry.reading() as session:
            row = session.get_one(Server, server_id)
            session.expunge_all()
        return row

    def get(self, path: str, **options: Any) -> Any:
        answer = self.client.get(f"/api/v1{path}", **options)
        assert answer.status_code == 200, answer.text
        return answer.json


def fake_environment(folder: Path, version: str = "3.17.2") -> None:
    """What `tracking_server/install` would leave, as far as the edge looks."""
    environment = folder / f"mlflow-{version}"
    (environment / "bin").mkdir(parents=True, exist_ok=True)
    (environment / "bin" / "python").touch(mode=0o755)
    (environment / "version.json").write_text(json.dumps({"mlflow_version": version, "schema_revision": "abc123"}))


def make_settings(home: Path, **changes: Any) -> Settings:
    fake_environment(home / "envs")
    given = {
        "state_dir": home / "state",
        "envs_dir": home / "envs",
        "inside_host": "mlflow01.example.org",
        "portal_url": "https://portal.example.org",
        "allow_unisolated": True,
        "port_first": 20300,
        "port_last": 20399,
    }
    return replace(Settings(), **{**given, "socket": None, "database_url": None, **changes})


def make_world(home: Path, **changes: Any) -> World:
    settings = make_settings(home, **changes)
    for folder in (settings.state_dir, settings.run_dir):
        folder.mkdir(mode=0o700, exist_ok=True)
    keyring = Keyring(settings.keys_file)
    keyring.create()
    registry = Registry(settings.database_url)
    registry.migrate()
    directory, identity = FakeDirectory(), FakeIdentity()
    requests = Requests(
        registry=registry,
        directory=directory,
        settings=settings,
        keyring=keyring,
        kick=Kick(settings.kick_socket),
        hasher=Hasher(places=4, cost=4),
    )
    service = Service(
        settings=settings,
        registry=registry,
        directory=directory,
        keyring=keyring,
        requests=requests,
        access=Access(registry=registry, directory=directory, settings=settings, keyring=keyring, kick=Kick(settings.kick_socket)),
        leases=Leases(registry=registry, directory=directory, settings=settings, kick=Kick(settings.kick_socket)),
        runtime_name="process",
        runtime_isolates=False,
    )
    app = create_app(service, identity)
    return World(service=service, directory=directory, identity=identity, client=app.test_client())
