"""The console's own JSON, over mlwf's client and a fake service on a Unix socket."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from ood_app import caller as own
from tests.console.conftest import Caller, deleted_twice
from tests.console.fake_service import FakeService
from tests.console.form import FORM


def created(service: FakeService) -> dict[str, Any]:
    return next(body for method, path, body in service.received if (method, path) == ("POST", "/api/v1/servers"))


@pytest.fixture
def credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "credentials"
    file.write_text("[default]\naws_access_key_id = AKIADEFAULT\naws_secret_access_key = from-the-file\n[no-key]\nregion = x\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    return file


def test_create_gives_the_form_to_the_service_and_nothing_else(caller: Caller, service: FakeService) -> None:
    answer = caller.send("POST", "/servers", {**FORM, "endpoint_url": " ", "idle_seconds": "60", "surprise": "x"})
    assert answer.status_code == 202
    assert answer.json["kind"] == "create"
    assert created(service) == {
        "group": "gaa50000",
        "env_name": "wine",
        "bucket": "wine-models",
        "access_key_id": "AKIAEXAMPLE",
        "secret_access_key": "s3cr3t-key",
        "idle_seconds": 60,
    }


def test_the_steps_and_the_message_of_a_create_arrive(caller: Caller, service: FakeService) -> None:
    service.stepwise = True
    operation = caller.send("POST", "/servers", FORM).json["id"]
    states = []
    for _each in range(8):
        answer = caller.get(f"/api/state?op={operation}").json
        states.append([step["state"] for step in answer["operations"][0]["steps"]])
    assert states[0] == ["running", "pending", "pending", "pending"]
    assert states[1] == ["succeeded", "running", "pending", "pending"]
    assert answer["operations"][0]["message"] == "Service created"
    assert answer["servers"][0]["status"] == "running"


@pytest.mark.parametrize("name", [name for name in FORM if name != "credentials"])
def test_an_empty_field_is_named_before_the_service_is_asked(caller: Caller, service: FakeService, name: str) -> None:
    answer = caller.send("POST", "/servers", {**FORM, name: " "})
    assert answer.status_code == 422
    assert answer.json["fields"] == {name: "Fill in this field."}
    assert not service.received


def test_idle_seconds_must_be_a_number(caller: Caller, service: FakeService) -> None:
    answer = caller.send("POST", "/servers", {**FORM, "idle_seconds": "soon"})
    assert list(answer.json["fields"]) == ["idle_seconds"]
    assert not service.received


def test_the_services_word_on_a_field_comes_under_the_forms_name(caller: Caller) -> None:
    answer = caller.send("POST", "/servers", {**FORM, "cloud_storage_bucket_name": "Bad_Bucket", "env_name": "-x"})
    assert answer.status_code == 422
    assert set(answer.json["fields"]) == {"cloud_storage_bucket_name", "env_name"}


def test_read_credentials_names_profiles_and_never_their_keys(caller: Caller, credentials: Path) -> None:
    answer = caller.get("/api/profiles")
    assert answer.json == {"profiles": ["default"]}


def test_read_credentials_takes_the_pair_from_the_callers_file(caller: Caller, service: FakeService, credentials: Path) -> None:
    body = {**FORM, "credentials": "read", "profile": "default", "cloud_storage_secret_accesskey": "typed before"}
    answer = caller.send("POST", "/servers", body)
    assert answer.status_code == 202
    assert (created(service)["access_key_id"], created(service)["secret_access_key"]) == ("AKIADEFAULT", "from-the-file")
    assert "from-the-file" not in answer.get_data(as_text=True)


def test_a_profile_without_a_key_is_said(caller: Caller, credentials: Path) -> None:
    answer = caller.send("POST", "/servers", {**FORM, "credentials": "read", "profile": "no-key"})
    assert answer.status_code == 422
    assert "no-key" in answer.json["detail"]
    assert answer.json["cure"]


@pytest.mark.parametrize(("status", "change"), [("stopped", "start"), ("running", "stop")])
def test_start_and_stop_are_asked_of_the_service(caller: Caller, service: FakeService, status: str, change: str) -> None:
    service.add("gaa50000", "wine", status)
    assert caller.send("POST", f"/servers/gaa50000/wine/{change}").status_code == 202
    assert service.received == [("POST", f"/api/v1/servers/gaa50000/wine/{change}", None)]


def test_restore_is_of_the_row_that_was_pressed(caller: Caller, service: FakeService) -> None:
    older, _newer = deleted_twice(service)
    answer = caller.send("POST", "/servers/gaa50000/wine/restore", {"server_id": older["id"]})
    assert (answer.status_code, answer.json["server_id"]) == (202, older["id"])


PRESSED: dict[str, tuple[str, dict[str, str]]] = {
    "start": ("POST", {}),
    "stop": ("POST", {}),
    "rollback": ("POST", {}),
    "upgrade": ("POST", {"mlflow_version": "3.17.2"}),
    "size": ("PUT", {"size": "medium"}),
    "storage": ("PUT", {"credentials": "manual", "cloud_storage_accesskey_ID": "AKIANEW", "cloud_storage_secret_accesskey": "new-secret"}),
    "auth": ("POST", {}),
    "": ("DELETE", {"typed": "wine"}),
}


@pytest.mark.parametrize("what", PRESSED)
def test_what_a_page_of_before_shows_is_not_done_to_another_server_of_that_name(caller: Caller, service: FakeService, what: str) -> None:
    """Somebody deleted the server and made another one, while the page was open."""
    method, body = PRESSED[what]
    shown = service.add("gaa50000", "wine")["id"]
    auth_file = Path(service.add("gaa50000", "wine")["auth_file"])
    auth_file.parent.mkdir(parents=True)
    auth_file.write_text("{'user_name': 'alice', 'pass': 'secret'}")
    answer = caller.send(method, f"/servers/gaa50000/wine/{what}".rstrip("/"), {**body, "server_id": shown})
    assert (answer.status_code, answer.json["code"]) == (404, "server_replaced")
    assert answer.json["cure"] == "Look at the list, and ask again if you mean the new one."
    assert not service.operations


def test_no_other_change_can_be_asked(caller: Caller, service: FakeService) -> None:
    service.add("gaa50000", "wine")
    assert caller.send("POST", "/servers/gaa50000/wine/close").status_code == 404
    assert not service.received


@pytest.mark.parametrize("typed", [None, "", "wine ", "Wine", "other"])
def test_delete_wants_the_name_typed(caller: Caller, service: FakeService, typed: str | None) -> None:
    service.add("gaa50000", "wine")
    assert caller.send("DELETE", "/servers/gaa50000/wine", {"typed": typed}).status_code == 422
    assert not service.received
    assert caller.send("DELETE", "/servers/gaa50000/wine", {"typed": "wine"}).status_code == 202
    assert service.received[0][:2] == ("DELETE", "/api/v1/servers/gaa50000/wine")


def test_another_key_for_a_server(caller: Caller, service: FakeService) -> None:
    service.add("gaa50000", "wine")
    pair = {"credentials": "manual", "cloud_storage_accesskey_ID": "AKIANEW", "cloud_storage_secret_accesskey": "new-secret"}
    assert caller.send("PUT", "/servers/gaa50000/wine/storage", pair).status_code == 202
    assert service.received[0][2] == {"access_key_id": "AKIANEW", "secret_access_key": "new-secret"}


def test_registration_without_a_file_says_where_and_what(caller: Caller, service: FakeService) -> None:
    path = service.add("gaa50000", "wine")["auth_file"]
    answer = caller.send("POST", "/servers/gaa50000/wine/auth")
    assert answer.json["code"] == "auth_file_missing"
    assert answer.json["path"] == path
    assert answer.json["template"] == "{'user_name': 'USER_NAME', 'pass': 'PASSWORD'}"
    assert not service.received


def test_registration_reads_the_file_as_the_caller(caller: Caller, service: FakeService) -> None:
    path = Path(service.add("gaa50000", "wine")["auth_file"])
    path.parent.mkdir(parents=True)
    path.write_text("[{'user_name': 'alice', 'pass': 'p1'}, {'user_name': 'bob', 'pass': 'p2'}]")
    path.chmod(0o640)
    answer = caller.send("POST", "/servers/gaa50000/wine/auth")
    assert answer.status_code == 202
    assert answer.json["notice"] is None
    assert service.received[0][2] == {"users": [{"user_name": "alice", "pass": "p1"}, {"user_name": "bob", "pass": "p2"}]}


def test_a_file_that_everybody_can_read_is_pointed_out(caller: Caller, service: FakeService) -> None:
    path = Path(service.add("gaa50000", "wine")["auth_file"])
    path.parent.mkdir(parents=True)
    path.write_text("{'user_name': 'alice', 'pass': 'p1'}")
    path.chmod(0o644)
    notice = caller.send("POST", "/servers/gaa50000/wine/auth").json["notice"]
    assert str(path) in notice["detail"]
    assert "chmod o=" in notice["cure"]


def test_a_broken_file_is_refused_without_its_content(caller: Caller, service: FakeService) -> None:
    path = Path(service.add("gaa50000", "wine")["auth_file"])
    path.parent.mkdir(parents=True)
    path.write_text("{'user_name': 'alice', 'pass': *hunter2}")
    answer = caller.send("POST", "/servers/gaa50000/wine/auth")
    assert answer.status_code == 422
    assert str(path) in answer.json["detail"]
    assert "hunter2" not in answer.get_data(as_text=True)
    assert not service.received


def test_the_file_can_be_made_once_and_its_password_stays_in_it(caller: Caller, service: FakeService) -> None:
    path = Path(service.add("gaa50000", "wine")["auth_file"])
    answer = caller.send("POST", "/servers/gaa50000/wine/auth-file")
    assert answer.status_code == 201
    assert answer.json == {"path": str(path), "user_name": "alice"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    content = path.read_text()
    again = caller.send("POST", "/servers/gaa50000/wine/auth-file")
    assert (again.status_code, again.json["code"]) == (409, "auth_file_exists")
    assert path.read_text() == content
    registered = caller.send("POST", "/servers/gaa50000/wine/auth")
    password = service.received[-1][2]["users"][0]["pass"]
    assert len(password) >= 20
    assert password in content
    assert password not in answer.get_data(as_text=True) + registered.get_data(as_text=True)


def test_the_file_is_made_for_the_servers_group(caller: Caller, service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[int, int]] = []
    monkeypatch.setattr("os.chown", lambda _made, uid, gid: given.append((uid, gid)))
    service.add("gaa50000", "wine", gid=54321)
    assert caller.send("POST", "/servers/gaa50000/wine/auth-file").status_code == 201
    assert given == [(-1, 54321)] * 4, "aihub, wine, yml and the file"


def test_a_folder_in_the_way_is_said(caller: Caller, service: FakeService) -> None:
    service.add("gaa50000", "wine", auth_file="/proc/nowhere/aihub/basic_auth.yml")
    answer = caller.send("POST", "/servers/gaa50000/wine/auth-file")
    assert answer.status_code == 422
    assert answer.json["detail"].startswith("/proc/nowhere/aihub/basic_auth.yml cannot be made: ")
    assert answer.json["cure"]


def test_a_service_that_is_away_is_said_to_the_reader_and_to_the_admins(
    caller: Caller, service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    service.stop()
    answer = caller.get("/api/state")
    assert (answer.status_code, answer.json["code"]) == (503, "service_unreachable")
    assert answer.json["detail"] == "The service cannot be reached: there is no such socket."
    assert answer.json["cure"] == "The page tries again by itself; if it goes on, tell the admins."
    assert str(service.socket) in caplog.text
    assert "MLWF_SERVICE" in caplog.text


@pytest.mark.parametrize(
    ("method", "path", "cure"),
    [
        ("GET", "/me", "The page tries again by itself"),
        ("GET", "/servers/gaa50000/wine/tokens", "Try again; if it goes on"),
        ("POST", "/servers", "What you asked for may still be done: look at the list"),
        ("POST", "/servers/gaa50000/wine/stop", "What you asked for may still be done: look at the list"),
        ("DELETE", "/servers/gaa50000/wine", "What you asked for may still be done: look at the list"),
        ("PUT", "/servers/gaa50000/wine/storage", "What you asked for may still be done: look at the list"),
    ],
)
def test_nobody_promises_to_try_again_what_nobody_tries_again(
    caller: Caller, service: FakeService, method: str, path: str, cure: str
) -> None:
    service.stop()
    answer = caller.get(f"/api{path}") if method == "GET" else caller.send(method, path, {**FORM, "typed": "wine"})
    assert (answer.status_code, answer.json["code"]) == (503, "service_unreachable")
    assert answer.json["cure"].startswith(cure)


def test_a_failure_of_the_service_keeps_its_words(caller: Caller, service: FakeService) -> None:
    service.broken = True
    answer = caller.get("/api/state")
    assert (answer.status_code, answer.json["code"]) == (500, "internal")
    assert answer.json["detail"] == "The service has an internal error (request 7)"
    assert answer.json["cure"]


@pytest.mark.parametrize("identifier", ["op_00000000000000ff", "nonsense"])
def test_an_operation_that_is_forgotten_does_not_spoil_the_list(caller: Caller, service: FakeService, identifier: str) -> None:
    service.add("gaa50000", "wine")
    answer = caller.get(f"/api/state?op={identifier}")
    assert answer.status_code == 200
    assert answer.json["operations"] == []
    assert len(answer.json["servers"]) == 1


def test_deleted_servers_are_listed_with_their_date(caller: Caller, service: FakeService) -> None:
    until = "2026-12-08T00:00:00+00:00"
    service.add("gaa50000", "old", "deleted", deletion={"deleted_at": until, "restorable_until": until, "kept": []})
    (server,) = caller.get("/api/state").json["servers"]
    assert (server["restorable_until"], server["allowed"]) == (until, ["restore"])


def test_only_web_addresses_become_links(caller: Caller, service: FakeService) -> None:
    service.add("gaa50000", "wine", outside_url="javascript:alert(1)")
    (server,) = caller.get("/api/state").json["servers"]
    assert server["outside_url"] is None
    assert server["open_url"] == server["inside_url"]


def test_the_lines_for_a_job_are_safe_to_paste(caller: Caller, service: FakeService) -> None:
    service.add("gaa50000", "wine", users={"names": ["o'neil; rm -rf ~"], "updated_at": None})
    (server,) = caller.get("/api/state").json["servers"]
    assert server["job_lines"].splitlines() == [
        "export MLFLOW_TRACKING_URI=http://mlflow01.example.org:21001/mlflow/",
        "export MLFLOW_TRACKING_USERNAME='o'\"'\"'neil; rm -rf ~'",
        f"# the pass of this user in {server['auth_file']}:",
        "export MLFLOW_TRACKING_PASSWORD=",
        '# with the mlwf tools, instead of the lines above: eval "$(mlwf server env gaa50000/wine)"',
    ]


def test_a_server_with_direct_artifacts_names_its_storage_in_the_lines(caller: Caller, service: FakeService) -> None:
    service.add("gaa50000", "wine")["storage"]["artifact_access"] = "direct"
    (server,) = caller.get("/api/state").json["servers"]
    assert "export MLFLOW_S3_ENDPOINT_URL=https://s3.example.org" in server["job_lines"].splitlines()
    assert "export MLFLOW_S3_ENDPOINT_URL=https://s3.example.org" in server["export_command"].splitlines()


def test_the_export_and_image_commands_are_ready(caller: Caller, service: FakeService) -> None:
    service.add("gaa50000", "wine")
    (server,) = caller.get("/api/state").json["servers"]
    assert server["export_command"].splitlines()[0] == 'eval "$(mlwf server env gaa50000/wine)"'
    assert server["export_command"].splitlines()[-1] == (
        "mlwf_export_model --model-registry-url http://mlflow01.example.org:21001/mlflow/ --model-name NAME --model-version VERSION"
    )
    assert server["image_command"].splitlines()[-1].startswith("mlwf_create_image --model-pkg-url PATH_OR_URL/model.tar.gz ")


def test_groups_to_choose_from_stand_in_order(caller: Caller, service: FakeService) -> None:
    """NSS has them by their numbers: among sixty one looks for the name."""
    service.groups[:] = ["gbb60000", "gaa50001", "gcc10000"]
    assert caller.get("/api/me").json["groups"] == ["gaa50001", "gbb60000", "gcc10000"]


def test_groups_that_changed_since_the_portal_session_began_are_told(
    caller: Caller, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own, "group_change", lambda: own.GroupChange(joined=("gaa50001", "unrelated"), left=("gone",)))
    answer = caller.get("/api/me").json
    assert (answer["joined"], answer["left"]) == (["gaa50001"], ["gone"])


def test_the_change_of_groups_is_taken_from_the_process_and_the_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getgroups", lambda: [1, 2, 987654])
    monkeypatch.setattr("os.getgid", lambda: 1)
    monkeypatch.setattr("os.getgrouplist", lambda _name, _gid: [1, 2, 3])
    change = own.group_change()
    assert change.left == ("987654",)
    assert len(change.joined) == 1
