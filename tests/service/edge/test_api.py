"""What happens around every request: errors, languages, request ids, bodies; and the answers' shapes."""

import io
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.exc import IntegrityError

from backend import log as logs
from backend.api.answers import Problem
from backend.domain import Caller, Status
from backend.log import OneLine
from backend.reconcile.heartbeat import beat
from backend.registry.models import Operation, Server, now
from tests.service.edge.world import ADMIN, ALICE, BOB, BODY, GROUP, OTHER, World, make_world

WINE = "/api/v1/servers/gaa50000/wine"


def problem(answer: Any, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.content_type == "application/problem+json"
    found: dict[str, Any] = answer.json
    Problem(**found)
    assert (found["status"], found["code"], found["type"]) == (status, code, f"urn:aihub:problem:{code}")
    assert found["title"]
    assert found["detail"]
    assert found["cure"]
    assert found["request_id"] == answer.headers["X-Request-Id"]
    return found


def test_errors_before_any_handler(world: World) -> None:
    problem(world.client.get("/nothing/here"), 404, "no_such_path")
    problem(world.client.get("/api/v1/servers/a/b/c/d"), 404, "no_such_path")
    refused = world.client.delete("/api/v1/me")
    problem(refused, 405, "method_not_allowed")
    assert "GET" in refused.headers["Allow"]
    problem(world.client.options("/api/v1/me"), 405, "method_not_allowed")


def test_an_error_that_nobody_foresaw(world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def broken(**_: object) -> None:
        raise RuntimeError("the reason is for the log alone")

    monkeypatch.setattr(world.directory, "caller", broken)
    found = problem(world.client.get("/api/v1/me"), 500, "internal")
    assert found["request_id"] in found["detail"]
    assert "the reason is for the log alone" not in json.dumps(found)
    assert "the reason is for the log alone" in caplog.text


@pytest.mark.parametrize(
    ("body", "kind", "status", "code"),
    [
        (b"{", "application/json", 400, "not_json"),
        (b"[]", "application/json", 400, "not_json"),
        (b"\xff", "application/json", 400, "not_json"),
        (b"[" * 60000, "application/json", 400, "not_json"),
        (b"", "application/json", 400, "not_json"),
        (b"{}", "text/plain", 400, "not_json"),
        (b"a=b", "application/x-www-form-urlencoded", 400, "not_json"),
        (b"{}", "application/json", 422, "invalid_request"),
        (b" " * 65537, "application/json", 413, "too_large"),
    ],
)
def test_bodies(world: World, body: bytes, kind: str, status: int, code: str) -> None:
    problem(world.client.post("/api/v1/servers", data=body, content_type=kind), status, code)


def test_a_body_where_none_belongs(world: World) -> None:
    world.made()
    problem(world.client.post(f"{WINE}/stop", json={"force": True}), 422, "invalid_request")
    problem(world.client.delete(WINE, json={}), 422, "invalid_request")
    assert world.client.post(f"{WINE}/stop").status_code == 202


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"env_name": "W"}, "env_name"),
        ({"env_name": "w"}, "env_name"),
        ({"env_name": "w" * 256}, "env_name"),
        ({"env_name": "wine\n"}, "env_name"),
        ({"env_name": 7}, "env_name"),
        ({"bucket": "No_Bucket"}, "bucket"),
        ({"bucket": "192.168.0.1"}, "bucket"),
        ({"bucket": "a..b"}, "bucket"),
        ({"access_key_id": ""}, "access_key_id"),
        ({"access_key_id": "a b"}, "access_key_id"),
        ({"secret_access_key": "geheim\n"}, "secret_access_key"),
        ({"secret_access_key": ""}, "secret_access_key"),
        ({"secret_access_key": None}, "secret_access_key"),
        ({"endpoint_url": "file:///etc/passwd"}, "endpoint_url"),
        ({"endpoint_url": "http://user:pw@host"}, "endpoint_url"),
        ({"endpoint_url": "https://[9:f]:9000"}, "endpoint_url"),
        ({"endpoint_url": "https://s3.example.org:65536"}, "endpoint_url"),
        ({"endpoint_url": "https://s3.example.org:0"}, "endpoint_url"),
        ({"region": "eu west"}, "region"),
        ({"idle_seconds": -1}, "idle_seconds"),
        ({"idle_seconds": True}, "idle_seconds"),
        ({"idle_seconds": "5"}, "idle_seconds"),
        ({"artifact_access": "both"}, "artifact_access"),
        ({"group": "a/b"}, "group"),
        ({"surprise": 1}, "surprise"),
    ],
)
@pytest.mark.parametrize("language", ["en", "ja"])
def test_fields_are_blamed_in_the_readers_language(world: World, changes: dict[str, Any], field: str, language: str) -> None:
    answer = world.client.post("/api/v1/servers", json={**BODY, **changes}, headers={"Accept-Language": language})
    found = problem(answer, 422, "invalid_request")
    assert list(found["fields"]) == [field]
    assert answer.headers["Content-Language"] == language
    assert found["fields"][field].isascii() == (language == "en")
    assert "geheim" not in answer.text


def test_languages(world: World) -> None:
    asked_for = {"ja-JP,ja;q=0.9,en;q=0.1": "ja", "fr": "en", "": "en", "en;q=0.2,ja;q=0.8": "ja", "\x7f;;q=x": "en"}
    for asked, given in {**asked_for, "ja-JP,en;q=0.5": "ja", "ja;q=0": "en"}.items():
        answer = world.client.get("/api/v1/none", headers={"Accept-Language": asked})
        assert answer.headers["Content-Language"] == given
        assert "Accept-Language" in answer.headers["Vary"]


@pytest.mark.parametrize(
    ("sent", "kept"), [("abc-1.2_3", True), ("a" * 64, True), ("a" * 65, False), ("a b", False), ("", False), ("é", False)]
)
def test_request_ids(world: World, sent: str, kept: bool) -> None:
    given = world.client.get("/api/v1/me", headers={"X-Request-Id": sent}).headers["X-Request-Id"]
    assert (given == sent) == kept
    assert given


@contextmanager
def logged(form: str) -> Iterator[io.StringIO]:
    """What the requests of the block leave in a log of that form."""
    log, stream = logging.getLogger("aihub.access"), io.StringIO()
    handler = logs.handler(form, stream)
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield stream
    finally:
        log.removeHandler(handler)
        log.setLevel(logging.NOTSET)


def test_a_request_is_logged_in_one_line(world: World) -> None:
    with logged("text") as stream:
        world.client.get("/api/v1/x%0a2026-01-01 forged?secret=1", headers={"X-Request-Id": "rid-1"})
    (line,) = stream.getvalue().splitlines()
    assert "aihub.access: GET /api/v1/x\\n2026-01-01 forged 404 " in line
    assert line.endswith("ms user=- request=rid-1")
    assert "secret" not in line


def test_a_change_is_logged_with_all_its_ids(world: World) -> None:
    with logged("json") as stream:
        made = world.client.post("/api/v1/servers", json=BODY, headers={"X-Request-Id": "rid-2"}).json
        world.client.get("/api/v1/me", headers={"X-Request-Id": "rid-3"})
    change, look = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert made is not None
    assert list(change) == ["time", "level", "logger", "message", "request_id", "operation_id", "server_id"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", change["time"])
    assert (change["level"], change["logger"]) == ("INFO", "aihub.access")
    assert [change[name] for name in logs.IDS] == ["rid-2", made["id"], made["server_id"]]
    assert [look[name] for name in logs.IDS] == ["rid-3", None, None]  # the next request of the same thread
    assert BODY["secret_access_key"] not in stream.getvalue()


def test_me(world: World) -> None:
    me = world.get("/me")
    assert me["user"] == "alice"
    assert me["groups"] == [{"name": "gaa50000", "gid": 20001, "may_create": True}]
    assert me["defaults"]["mlflow_version"] == "3.17.2"
    assert me["choices"] == {"mlflow_version": ["3.17.2"], "size": ["small", "medium", "large"], "artifact_access": ["proxied", "direct"]}
    small = {"name": "small", "memory": 1024**3, "cpus": 1.0, "pids": 256, "workers": 1, "log": 1024**2}
    assert me["sizes"][0] == small | {"genai_jobs": False, "gateway": False, "gateway_private": False}
    assert me["runtime"] == {"name": "process", "isolates": False}
    assert (me["endpoint_url_fixed"], me["restore_days"], me["previous_days"], me["group_area"]) == (False, 14, 14, "/groups")


def test_only_groups_on_offer(tmp_path: Path) -> None:
    world = make_world(tmp_path, allowed_groups=("gbb*",))
    assert world.get("/me")["groups"] == []
    problem(world.client.post("/api/v1/servers", json=BODY), 403, "group_not_offered")


def test_a_server_as_the_contract_has_it(world: World) -> None:
    server_id = world.made(env_name="w" + "x" * 254)
    view = world.get("/servers")["servers"][0]
    assert view["id"] == server_id
    assert len(view["id"]) == 12
    assert view["inside_url"] == f"http://mlflow01.example.org:{view['port']}/mlflow/"
    assert view["outside_url"] == f"https://portal.example.org/rnode/mlflow01.example.org/{view['port']}/mlflow/"
    assert view["auth_file"] == f"/groups/gaa50000/aihub/{'w' + 'x' * 254}/yml/basic_auth.yml"
    assert view["storage"]["prefix"] == f"mlflow/{server_id}"
    assert view["allowed"] == ["start", "stop", "delete", "users", "storage", "resize", "upgrade"]
    assert view["created_at"].endswith("+00:00")
    assert [each["code"] for each in view["warnings"]] == ["no_users"]
    assert (view["status"], view["desired"], view["reason"], view["deletion"], view["operation"]) == (
        "running",
        "running",
        None,
        None,
        None,
    )
    assert world.get(f"/servers/gaa50000/{view['env_name']}") == view


def test_warnings_and_reason(world: World) -> None:
    operation = world.create()
    reason = {"code": "box_failed_to_start", "params": {"why": "it ended"}, "log": "last line"}
    world.finish(
        operation["id"],
        status=Status.FAILED,
        reason=reason,
        other_buckets=3,
        users=[{"name": "u", "bcrypt": "x"}],
        former_members=["mallory"],
    )
    view = world.get("/servers/gaa50000/wine", headers={"Accept-Language": "ja"})
    assert view["reason"]["detail"] == "トラッキングサーバが起動しませんでした: 終了しました"
    assert view["reason"]["log"] == "last line"
    assert [each["code"] for each in view["warnings"]] == ["former_member", "key_opens_more"]
    assert "mallory" in view["warnings"][0]["detail"]
    assert view["storage"]["other_buckets"] == 3
    assert view["users"]["names"] == ["u"]


def test_the_list_asks_a_fixed_number_of_questions(tmp_path: Path) -> None:
    """However many servers: so many statements, none for rows that the answer does not have, and NSS once for the caller."""
    world = make_world(tmp_path)
    statements: list[str] = []
    event.listen(world.registry._engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    counts, all_of_them = [], []
    for number in range(6):
        world.made(env_name=f"wine-{number}")
        statements.clear()
        world.directory.asked.clear()
        assert len(world.get("/servers")["servers"]) == number + 1
        counts.append((len(statements), list(world.directory.asked)))
        all_of_them += statements
    assert counts == [counts[0]] * 6
    assert counts[0][1] == ["caller"]
    assert not [each for each in all_of_them if "FROM tokens" in each or "FROM visits" in each]


def test_an_admin_lists_all(world: World) -> None:
    world.made()
    problem(world.client.get("/api/v1/servers?all=true"), 403, "not_allowed")
    problem(world.client.get("/api/v1/servers?all=perhaps"), 422, "invalid_request")
    problem(world.client.get("/api/v1/servers?sort=x"), 422, "invalid_request")
    world.be(BOB)
    assert world.get("/servers")["servers"] == []
    world.be(ADMIN)
    assert world.get("/servers")["servers"] == []
    assert len(world.get("/servers?all=true")["servers"]) == 1


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        ({"bucket": "X"}, "bucket", "Not a bucket's name: 3 to 63"),
        ({"bucket": "ab"}, "bucket", "Not a bucket's name: 3 to 63"),
        ({"bucket": "a" * 64}, "bucket", "Not a bucket's name: 3 to 63"),
        ({"secret_access_key": ""}, "secret_access_key", "1 to 256 printable"),
        ({"secret_access_key": "x" * 257}, "secret_access_key", "1 to 256 printable"),
        ({"access_key_id": ""}, "access_key_id", "1 to 128 printable"),
    ],
)
def test_a_text_that_is_too_short_or_too_long_is_told_the_fields_rule(world: World, changes: dict[str, str], field: str, said: str) -> None:
    answer = world.client.post("/api/v1/servers", json={**BODY, **changes}).json
    assert answer["fields"][field].startswith(said)


@pytest.mark.parametrize("password", ["", "x" * 80, "é" * 40, "a\n"])
def test_a_password_of_the_wrong_length_is_told_its_rule(world: World, password: str) -> None:
    world.made()
    answer = world.client.put(f"{WINE}/users", json={"users": [{"user_name": "a", "pass": password}]}).json
    assert answer["fields"] == {"users.0.pass": "1 to 72 bytes, no control characters"}


def test_operations(world: World) -> None:
    created = world.create()
    assert (created["kind"], created["state"], created["message"]) == ("create", "pending", "Creating the server …")
    with world.registry.session() as session:
        row = session.get_one(Operation, created["id"])
        at = now().isoformat()
        row.state, row.finished_at = "failed", now()
        row.steps = [
            {"name": "check_storage", "state": "failed", "started_at": at, "finished_at": at, "detail": None},
            {"name": "start_box", "state": "pending", "started_at": None, "finished_at": None, "detail": None},
        ]
        row.error = {"code": "storage_bucket_missing", "params": {"bucket": "b", "endpoint": "http://s3"}, "log": None}
    found = world.get(f"/operations/{created['id']}", headers={"Accept-Language": "ja"})
    assert found["message"] == "サーバを作成できませんでした"
    assert [step["label"] for step in found["steps"]] == ["バケットとキーを確認", "サーバを起動"]
    assert found["error"]["status"] == 422
    assert found["error"]["detail"] == "http://s3 にバケット b はありません"
    world.be(BOB)
    problem(world.client.get(f"/api/v1/operations/{created['id']}"), 404, "no_such_operation")
    problem(world.client.get("/api/v1/operations/op_0123456789abcdef"), 404, "no_such_operation")


def test_an_accepted_change_says_where_to_look(world: World) -> None:
    answer = world.client.post("/api/v1/servers", json=BODY)
    assert answer.headers["Location"] == f"/api/v1/operations/{answer.json['id']}"


def test_health_needs_nobody(world: World) -> None:
    world.identity.current = 4242
    assert world.get("/health")["status"] == "degraded"
    beat(world.service.settings.run_dir, 0.1)
    health = world.get("/health")
    assert (health["status"], health["reconciler"]["ok"]) == ("ok", True)
    problem(world.client.get("/api/v1/me"), 401, "caller_unknown")


def test_a_frozen_group(world: World) -> None:
    """The group's name has another gid now: who has the old gid sees that it is frozen, and nothing that would help them in."""
    operation = world.create()
    world.finish(operation["id"], users=[{"name": "u", "bcrypt": "x"}])
    world.directory.groups[GROUP.name] = type(GROUP)(name=GROUP.name, gid=29999)
    world.be(Caller(user="alice", uid=ALICE.uid, groups=(type(GROUP)(name="renamed", gid=GROUP.gid),)))
    view = world.get("/servers/gaa50000/wine")
    assert view["allowed"] == []
    assert view["warnings"][0]["code"] == "group_changed"
    assert view["users"]["names"] == []
    assert view["storage"]["access_key_id"] == "AKEX…ID01"
    problem(world.client.post(f"{WINE}/start"), 409, "group_changed")
    world.be(ADMIN)
    assert world.get("/servers/gaa50000/wine")["allowed"] == ["stop", "delete"]


def test_a_group_of_the_same_name_sees_nothing_of_anothers_server(world: World) -> None:
    operation = world.create()
    world.finish(operation["id"])
    strangers = type(GROUP)(name=GROUP.name, gid=29999)
    world.directory.groups[GROUP.name] = strangers
    world.be(Caller(user="carol", uid=1003, groups=(strangers,)))
    assert world.get("/servers?deleted=true")["servers"] == []
    told = [world.client.get(WINE), world.client.post(f"{WINE}/start"), world.client.post("/api/v1/servers", json=BODY)]
    for answer in told:
        problem(answer, 409, "group_changed")
        assert "wine-bucket" not in answer.text
    problem(world.client.get(f"/api/v1/operations/{operation['id']}"), 404, "no_such_operation")


def test_who_left_the_group_reads_its_operations_no_more(world: World) -> None:
    operation = world.create()
    world.be(Caller(user="alice", uid=ALICE.uid, groups=(OTHER,)))
    problem(world.client.get(f"/api/v1/operations/{operation['id']}"), 404, "no_such_operation")


def test_the_operation_of_a_server_that_is_gone_is_told_to_who_asked(world: World) -> None:
    operation = world.create()
    with world.registry.session() as session:
        session.get_one(Operation, operation["id"]).server_id = None
    assert world.get(f"/operations/{operation['id']}")["server_id"] is None
    for caller in (Caller(user="carol", uid=1003, groups=(GROUP,)), Caller(user="alice", uid=ALICE.uid, groups=(OTHER,))):
        world.be(caller)
        problem(world.client.get(f"/api/v1/operations/{operation['id']}"), 404, "no_such_operation")
    world.be(ADMIN)
    assert world.get(f"/operations/{operation['id']}")["kind"] == "create"


def test_a_renamed_group_freezes_too(world: World) -> None:
    world.made()
    del world.directory.groups[GROUP.name]
    world.be(Caller(user="alice", uid=ALICE.uid, groups=(type(GROUP)(name="renamed", gid=GROUP.gid),)))
    (view,) = world.get("/servers")["servers"]
    assert view["warnings"][0]["detail"].startswith("Group gaa50000 now has a different id (none)")


def test_errors_of_the_registry_show_no_values(world: World, caplog: pytest.LogCaptureFixture) -> None:
    row = world.row(world.made())
    again = {**{each.name: getattr(row, each.name) for each in Server.__table__.columns}, "secret_access_key": "would-be-shown"}
    with pytest.raises(IntegrityError) as caught, world.registry.session() as session:
        session.execute(Server.__table__.insert(), again)
    record = logging.LogRecord("x", logging.ERROR, "", 0, "failed", None, (type(caught.value), caught.value, None))
    assert "would-be-shown" not in str(caught.value)
    line = OneLine("%(message)s").format(record)
    assert "would-be-shown" not in line
    assert "\n" not in line


def test_our_own_errors_are_refused_without_a_traceback(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.directory.broken = True
    world.client.get("/api/v1/me")
    assert "directory_failed" in caplog.text
    assert "Traceback" not in caplog.text
