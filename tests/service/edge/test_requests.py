"""What a request writes: the wish, the operation and the audit entry together, or nothing."""

import json
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import bcrypt
import pytest
from cryptography.fernet import Fernet
from mlwf.secret import Secret
from sqlalchemy import select

from backend.domain import Caller, OperationKind, Status
from backend.errors import ServiceError
from backend.registry.models import AuditEntry, Operation, Port, Server, now
from backend.wishes.kick import Kick
from backend.wishes.lookup import Ask
from backend.wishes.passwords import Hasher
from backend.wishes.policy import OFFERED
from tests.service.edge.asking import WINE, code, count, delete_for_good
from tests.service.edge.world import ADMIN, ALICE, BOB, BODY, GROUP, OTHER, World, make_world

USERS = {"users": [{"user_name": "alice", "pass": "a-password"}, {"user_name": "job", "pass": "another"}]}
STORAGE = {"access_key_id": "AKNEW", "secret_access_key": "new-secret"}


def payload(world: World, operation_id: str) -> dict[str, Any]:
    with world.registry.reading() as session:
        stored = session.get_one(Operation, operation_id).payload
    assert stored
    found: dict[str, Any] = json.loads(world.service.keyring.decrypt(stored).reveal())
    return found


def test_create_writes_all_of_it_at_once(world: World) -> None:
    operation = world.client.post("/api/v1/servers", json=BODY, headers={"X-Request-Id": "rid"}).json
    row = world.row(operation["server_id"])
    assert (row.status, row.desired, row.group_name, row.gid) == ("creating", "running", GROUP.name, GROUP.gid)
    assert (row.mlflow_version, row.schema_revision, row.host, row.region) == ("3.17.2", "abc123", "mlflow01.example.org", "us-east-1")
    assert row.prefix == f"mlflow/{row.id}"
    keyring = world.service.keyring
    assert keyring.decrypt(row.secret_access_key) == Secret(BODY["secret_access_key"])
    keys = json.loads(keyring.decrypt(row.box_keys).reveal())
    assert sorted(keys) == ["crypto_kek_passphrase", "flask_secret_key", "webhook_secret_encryption_key"]
    Fernet(keys["webhook_secret_encryption_key"])
    with world.registry.reading() as session:
        port = session.get_one(Port, row.port)
        entry = session.scalars(select(AuditEntry)).one()
        assert (port.server_id, port.rests_until) == (row.id, None)
        assert (entry.user, entry.uid, entry.action, entry.scheme) == ("alice", 1001, "create", "test")
        assert (entry.server_id, entry.operation_id, entry.request_id) == (row.id, operation["id"], "rid")


def test_what_was_chosen_is_kept(world: World) -> None:
    wish = {
        "endpoint_url": "https://s3.example.org",
        "region": "eu-1",
        "artifact_access": "direct",
        "mlflow_version": "3.17.2",
        "size": "large",
        "idle_seconds": 0,
    }
    row = world.row(world.made(**wish))
    assert {name: getattr(row, name) for name in wish} == wish


def test_two_servers_on_one_bucket_never_meet(world: World) -> None:
    first, second = world.row(world.made(env_name="one")), world.row(world.made(env_name="two"))
    assert first.bucket == second.bucket
    assert not first.prefix.startswith(second.prefix)
    assert not second.prefix.startswith(first.prefix)
    assert first.port != second.port


def test_one_of_two_creates_at_once_wins(world: World) -> None:
    """With real threads and the real database: one server, one port, one audit entry."""
    answers: list[int] = []
    barrier = threading.Barrier(6)

    def ask() -> None:
        barrier.wait()
        answers.append(world.client.application.test_client().post("/api/v1/servers", json=BODY).status_code)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [202, 409, 409, 409, 409, 409]
    assert [count(world, table) for table in (Server, Operation, Port, AuditEntry)] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"group": OTHER.name}, (403, "not_a_member")),
        ({"group": "no-such-group"}, (403, "not_a_member")),
        ({"mlflow_version": "1.0"}, (409, "version_missing")),
        ({"size": "huge"}, (409, "size_unknown")),
    ],
)
def test_a_create_that_is_refused_writes_nothing(world: World, changes: dict[str, Any], expected: tuple[int, str]) -> None:
    assert code(world.client.post("/api/v1/servers", json={**BODY, **changes})) == expected
    assert [count(world, table) for table in (Server, Operation, Port, AuditEntry)] == [0, 0, 0, 0]


def test_a_name_is_taken_until_it_is_deleted(world: World) -> None:
    world.made()
    assert code(world.client.post("/api/v1/servers", json=BODY)) == (409, "server_exists")
    delete_for_good(world)
    assert world.client.post("/api/v1/servers", json=BODY).status_code == 202


def test_the_sites_limits(tmp_path: Path) -> None:
    world = make_world(tmp_path, max_servers_per_group=1, endpoint_url="https://s3.site", create_by="admins", manage_by="admins")
    assert code(world.client.post("/api/v1/servers", json=BODY)) == (403, "not_allowed")
    assert not world.get("/me")["groups"][0]["may_create"]
    world.be(ADMIN)
    assert code(world.client.post("/api/v1/servers", json={**BODY, "endpoint_url": "https://elsewhere"})) == (403, "endpoint_fixed")
    row = world.row(world.made(endpoint_url="https://s3.site/"))
    assert (row.endpoint_url, row.created_by) == ("https://s3.site", "root")
    assert code(world.client.post("/api/v1/servers", json={**BODY, "env_name": "two"})) == (409, "too_many_servers")
    world.be(ALICE)
    view = world.get("/servers/gaa50000/wine")
    assert view["allowed"] == ["start", "stop"]
    assert view["storage"]["access_key_id"] == "AKEX…ID01"
    assert code(world.client.delete(WINE)) == (403, "not_allowed")
    assert code(world.client.put(f"{WINE}/users", json=USERS)) == (403, "not_allowed")
    assert world.client.post(f"{WINE}/stop").status_code == 202


def test_no_port_left(tmp_path: Path) -> None:
    world = make_world(tmp_path, port_first=20444, port_last=20444)
    world.made()
    assert code(world.client.post("/api/v1/servers", json={**BODY, "env_name": "two"})) == (503, "ports_exhausted")
    assert count(world, Server) == 1


def test_no_mlflow_installed(tmp_path: Path) -> None:
    world = make_world(tmp_path, envs_dir=tmp_path / "none")
    assert code(world.client.post("/api/v1/servers", json=BODY)) == (409, "version_missing")
    assert world.get("/me")["defaults"]["mlflow_version"] is None


def test_start_and_stop(world: World) -> None:
    server_id = world.made()
    stop = world.client.post(f"{WINE}/stop").json
    assert (stop["state"], world.row(server_id).desired) == ("pending", "stopped")
    assert world.client.post(f"{WINE}/stop").json["id"] == stop["id"]  # asked again: the same operation
    assert code(world.client.post(f"{WINE}/start")) == (409, "server_busy")
    world.finish(stop["id"], status=Status.STOPPED)
    again = world.client.post(f"{WINE}/stop").json
    assert (again["state"], again["message"]) == ("succeeded", "Server stopped")
    start = world.client.post(f"{WINE}/start").json
    assert (start["state"], world.row(server_id).desired) == ("pending", "running")
    world.finish(start["id"], status=Status.SLEEPING)
    assert world.client.post(f"{WINE}/start").json["state"] == "succeeded"


def test_a_failed_server_is_started_again(world: World) -> None:
    world.finish(world.create()["id"], status=Status.FAILED)
    assert world.client.post(f"{WINE}/start").json["state"] == "pending"


def test_while_one_operation_runs_no_other_begins(world: World) -> None:
    world.create()
    for ask in (
        lambda: world.client.post(f"{WINE}/stop"),
        lambda: world.client.delete(WINE),
        lambda: world.client.put(f"{WINE}/users", json=USERS),
        lambda: world.client.put(f"{WINE}/storage", json=STORAGE),
    ):
        assert code(ask()) == (409, "server_busy")
    assert count(world, Operation) == 1


def test_delete_and_restore(world: World) -> None:
    server_id = world.made()
    deleting = world.client.delete(WINE).json
    assert (world.row(server_id).desired, world.row(server_id).status) == ("absent", "deleting")
    assert world.client.delete(WINE).json["id"] == deleting["id"]
    assert code(world.client.post(f"{WINE}/start")) == (409, "server_deleting")
    another = world.client.post("/api/v1/servers", json=BODY)
    assert code(another) == (409, "server_deleting"), "its name is not free yet, and nobody can use it instead"
    assert another.json["cure"] == "Wait until it is deleted: then its name is free, and it can be restored."
    world.finish(deleting["id"], status=Status.DELETED, deleted_at=now(), restorable_until=now())
    assert code(world.client.get(WINE)) == (404, "no_such_server")
    assert world.get("/servers")["servers"] == []
    (view,) = world.get("/servers?deleted=true")["servers"]
    assert (view["status"], view["allowed"], view["deletion"]["kept"]) == ("deleted", ["restore"], ["database", "settings", "port"])
    restore = world.client.post(f"{WINE}/restore").json
    assert (restore["kind"], restore["server_id"]) == ("restore", server_id)


def test_restore_takes_the_latest_and_minds_the_name(world: World) -> None:
    assert code(world.client.post(f"{WINE}/restore")) == (404, "nothing_to_restore")
    world.made()
    first = delete_for_good(world)
    world.made()
    assert code(world.client.post(f"{WINE}/restore")) == (409, "server_exists")
    second = delete_for_good(world)
    assert world.client.post(f"{WINE}/restore").json["server_id"] == second != first


def test_of_several_deleted_ones_the_one_with_the_id_is_restored(world: World) -> None:
    world.made()
    first = delete_for_good(world)
    world.made()
    second = delete_for_good(world)
    assert code(world.client.post(f"{WINE}/restore?server_id=zzzzzzzzzzzz")) == (404, "nothing_to_restore")
    assert world.client.post(f"{WINE}/restore?server_id=../..").json["fields"] == {"server_id": "Not a server's id"}
    assert world.client.post(f"{WINE}/restore?server_id={first}").json["server_id"] == first != second


def test_the_id_of_a_server_of_another_name_restores_nothing(world: World) -> None:
    world.made(env_name="beer")
    other = delete_for_good(world, WINE.replace("wine", "beer"))
    world.made()
    delete_for_good(world)
    assert code(world.client.post(f"{WINE}/restore?server_id={other}")) == (404, "nothing_to_restore")


def test_users_are_hashed_and_never_stored_plain(world: World) -> None:
    world.made()
    operation = world.client.put(f"{WINE}/users", json=USERS).json
    stored = payload(world, operation["id"])
    assert stored["by"] == "alice"
    assert [user["name"] for user in stored["users"]] == ["alice", "job"]
    assert bcrypt.checkpw(b"a-password", stored["users"][0]["bcrypt"].encode())
    assert "a-password" not in json.dumps(stored)


@pytest.mark.parametrize(
    ("users", "field"),
    [
        ([{"user_name": "a:b", "pass": "x"}], "users.0.user_name"),
        ([{"user_name": "a", "pass": ""}], "users.0.pass"),
        ([{"user_name": "a", "pass": "é" * 37}], "users.0.pass"),
        ([{"user_name": "a", "pass": "x\n"}], "users.0.pass"),
        ([{"user_name": "a"}], "users.0.pass"),
        ([{"user_name": "a", "password": "x", "pass": "x"}], "users.0.password"),
        ([{"user_name": f"u{n}", "pass": "x"} for n in range(17)], "users"),
    ],
)
def test_users_that_are_refused(world: World, users: list[dict[str, str]], field: str) -> None:
    world.made()
    answer = world.client.put(f"{WINE}/users", json={"users": users})
    assert code(answer) == (422, "invalid_request")
    assert list(answer.json["fields"]) == [field]


def test_a_user_twice(world: World) -> None:
    world.made()
    answer = world.client.put(f"{WINE}/users", json={"users": [{"user_name": "a", "pass": "x"}, {"user_name": "a", "pass": "y"}]})
    assert "A user is listed twice" in answer.json["detail"]


def test_nobody_is_a_list_too(world: World) -> None:
    world.made()
    assert payload(world, world.client.put(f"{WINE}/users", json={"users": []}).json["id"])["users"] == []


def test_72_bytes_are_the_whole_password() -> None:
    (user,) = Hasher(places=1, cost=4).hash([("a", Secret("é" * 36))])
    assert bcrypt.checkpw(("é" * 36).encode(), user.bcrypt.encode())
    assert Hasher(places=1).hash([("a", Secret("x"))])[0].bcrypt.startswith("$2b$12$")


def test_hashing_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for many hashes at once is told to wait; the threads stay free for others."""
    hasher = Hasher(places=1, cost=4)
    inside, go_on = threading.Event(), threading.Event()

    def slow(_password: Secret) -> str:
        inside.set()
        assert go_on.wait(20)
        return "hash"

    monkeypatch.setattr(hasher, "_hash", slow)
    first = threading.Thread(target=hasher.hash, args=([("a", Secret("x"))],))
    first.start()
    assert inside.wait(20)
    with pytest.raises(ServiceError, match="too_many_requests"):
        hasher.hash([("b", Secret("y"))])
    go_on.set()
    first.join()
    assert hasher.hash([]) == ()


def test_storage_keeps_what_is_not_named(world: World) -> None:
    world.made(endpoint_url="https://s3.one", region="r1")
    first = world.client.put(f"{WINE}/storage", json=STORAGE).json
    assert payload(world, first["id"]) == {**STORAGE, "endpoint_url": "https://s3.one", "region": "r1"}
    world.finish(first["id"])
    second = world.client.put(f"{WINE}/storage", json={**STORAGE, "endpoint_url": "https://s3.two", "region": "r2"}).json
    assert payload(world, second["id"]) == {**STORAGE, "endpoint_url": "https://s3.two", "region": "r2"}


def test_storage_is_always_in_the_same_bucket(world: World) -> None:
    world.made()
    answer = world.client.put(f"{WINE}/storage", json={**STORAGE, "bucket": "another"})
    assert (answer.status_code, list(answer.json["fields"])) == (422, ["bucket"])


def test_strangers_learn_nothing(world: World) -> None:
    world.made()
    world.be(BOB)
    for path in (WINE, "/api/v1/servers/gaa50000/none"):
        assert code(world.client.get(path)) == (403, "not_a_member")
        assert code(world.client.delete(path)) == (403, "not_a_member")
        assert code(world.client.post(f"{path}/restore")) == (403, "not_a_member")


def test_who_left_is_refused_at_once(world: World) -> None:
    world.made()
    world.be(Caller(user="alice", uid=ALICE.uid, groups=()))
    assert code(world.client.post(f"{WINE}/stop")) == (403, "not_a_member")
    assert world.get("/servers")["servers"] == []


def test_purge_is_the_admins_alone(world: World) -> None:
    world.made()
    server_id = delete_for_good(world)
    with pytest.raises(ServiceError, match="not_allowed"):
        world.service.requests.purge(Ask(caller=ALICE, group=GROUP.name, env="wine"))
    assert world.service.requests.purge(Ask(caller=ADMIN, group=GROUP.name, env="wine")).server_id == server_id
    assert "purge" not in OFFERED


def test_the_reconciler_is_kicked(world: World) -> None:
    kick = Kick(world.service.settings.kick_socket)
    kick.listen()
    world.create()
    assert kick.wait(5)
    kick.close()


def test_every_kind_is_audited(world: World) -> None:
    world.made()
    for ask in (
        lambda: world.client.post(f"{WINE}/stop"),
        lambda: world.client.post(f"{WINE}/start"),
        lambda: world.client.put(f"{WINE}/users", json=USERS),
        lambda: world.client.put(f"{WINE}/storage", json=STORAGE),
        lambda: world.client.put(f"{WINE}/size", json={"size": "large"}),
        lambda: world.client.post(f"{WINE}/upgrade", json={"mlflow_version": "3.17.2"}),
        lambda: world.client.delete(WINE),
    ):
        world.finish(ask().json["id"], status=Status.STOPPED, mlflow_version="3.15.0")
    delete_for_good(world)
    world.client.post(f"{WINE}/restore")
    with world.registry.reading() as session:
        actions = list(session.scalars(select(AuditEntry.action).order_by(AuditEntry.id)))
    assert actions == ["create", "stop", "start", "users", "storage", "resize", "upgrade", "delete", "delete", "restore"]
    assert {kind.value for kind in OperationKind} - set(actions) == {"purge", "rollback"}


def test_what_is_so_already_fills_no_table(world: World) -> None:
    """Who asks in a loop for what changes nothing: nothing in the audit, which only grows, and one operation a minute."""
    server_id = world.made()
    asks = (
        lambda: world.client.post(f"{WINE}/start"),
        lambda: world.client.put(f"{WINE}/size", json={"size": world.get("/servers/gaa50000/wine")["size"]}),
        lambda: world.client.post(f"{WINE}/upgrade", json={"mlflow_version": "3.17.2"}),
    )
    for ask in asks:
        first, *others = [ask() for _ in range(3)]
        assert (first.status_code, first.json["state"]) == (202, "succeeded")
        assert {answer.json["id"] for answer in others} == {first.json["id"]}
    assert (count(world, Operation), count(world, AuditEntry)) == (4, 1)
    with world.registry.session() as session:
        for operation in session.scalars(select(Operation)):
            operation.finished_at = now() - timedelta(seconds=61)
    later = asks[0]().json
    assert count(world, Operation) == 5
    world.be(replace(ALICE, user="carol", uid=1003))
    assert asks[0]().json["id"] != later["id"], "each user's own"
    world.finish(world.client.post(f"{WINE}/stop").json["id"], status=Status.STOPPED)
    started = world.client.post(f"{WINE}/start").json
    assert (started["state"], world.row(server_id).desired) == ("pending", "running")


def test_since_when_a_server_has_its_status(world: World) -> None:
    """Whoever sets the status sets the time; the same status again, or another change, does not."""
    server_id = world.made()
    began = world.get("/servers/gaa50000/wine")["status_since"]
    assert began
    for status, later in ((Status.RUNNING, False), (Status.SLEEPING, True)):
        with world.registry.session() as session:
            row = session.get_one(Server, server_id)
            row.status, row.observed_at = status, now()
        assert (world.get("/servers/gaa50000/wine")["status_since"] > began) == later
