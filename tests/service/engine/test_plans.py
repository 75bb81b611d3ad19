import json
import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest

from backend.domain import BoxState
from backend.errors import ServiceError
from backend.messages import describe_stored
from backend.plans.catalogue import PLANS
from backend.plans.labels import LABELS
from backend.registry.models import Operation, Server, now
from tests.service.engine.support import ADMIN, GROUP, SECRET, VERSION, FakeBox, Site, make_database, runs_in


def states(operation: Operation) -> list[tuple[str, str]]:
    return [(step["name"], step["state"]) for step in operation.steps]


def run(site: Site, operation: Operation) -> Operation:
    site.reconciler().reconcile_all()
    return site.operation(operation)


def config(site: Site, server: Server, name: str) -> str:
    return (site.boxes.directory(server.id) / "config" / name).read_text()


def test_every_step_has_a_label():
    assert {step.name for plan in PLANS.values() for step in plan.steps} == set(LABELS)


def test_create_makes_a_server_that_answers(site: Site):
    done = run(site, site.create())
    assert states(done) == [(name, "succeeded") for name in ("check_storage", "write_box", "start_box", "wait_ready")]
    times = [step[at] for step in done.steps for at in ("started_at", "finished_at")]
    assert times == sorted(times)
    assert (done.state, done.error, done.payload) == ("succeeded", None, None)
    server = site.one()
    assert (server.status, server.reason, server.other_buckets) == ("running", None, 3)
    settings = json.loads(config(site, server, "settings.json"))
    assert settings["listen"] == f"127.0.0.1:{server.port}"
    assert settings["public_hosts"] == [f"host.example.org:{server.port}"]
    assert (settings["bucket"], settings["prefix"]) == ("bucket-a", f"mlflow/{server.id}")
    assert SECRET in config(site, server, "s3/credentials")
    assert SECRET not in config(site, server, "settings.json")


def test_the_portal_is_a_public_host_and_an_origin(tmp_path: Path):
    site = Site(tmp_path / "state", envs_dir=tmp_path / "envs", portal_url="https://portal.example.org")
    settings = json.loads(config(site, site.made(), "settings.json"))
    assert settings["public_hosts"][1:] == ["portal.example.org"]
    assert settings["origins"] == ["https://portal.example.org"]


@pytest.mark.parametrize("code", ["storage_unreachable", "storage_secret_wrong"])
def test_a_bucket_that_does_not_open_is_found_before_anything_is_made(site: Site, code: str):
    params = {"endpoint": "http://s3.example.org", "why": "refused", "access_key_id": "AKIA"}
    site.store.error = ServiceError(code, **params)
    done = run(site, site.create())
    assert done.state == "failed"
    assert done.error == {"code": code, "params": params, "log": None}
    assert states(done) == [("check_storage", "failed"), ("write_box", "pending"), ("start_box", "pending"), ("wait_ready", "pending")]
    assert site.runtime.starts == []
    site.assert_nothing_left()


def test_a_create_that_fails_is_undone_in_reverse_and_says_why(site: Site):
    site.runtime.born = BoxState.FAILED
    done = run(site, site.create())
    assert states(done) == [("check_storage", "succeeded"), ("write_box", "undone"), ("start_box", "undone"), ("wait_ready", "failed")]
    assert done.error is not None
    assert (done.error["code"], done.error["log"]) == ("box_failed_to_start", "the guard runs: the fake's last words")
    assert done.server_id is None
    site.assert_nothing_left()
    assert run(site, site.create()).state == "failed", "the name is free again at once"


def test_a_box_that_never_answers_fails_after_its_time(tmp_path: Path):
    site = Site(tmp_path / "state", envs_dir=tmp_path / "envs", start_timeout=1)
    site.runtime.born = BoxState.SILENT
    done = run(site, site.create())
    assert done.error is not None
    assert (describe_stored(done.error, "en") or {})["detail"] == "The tracking server did not start: it did not answer within 1 seconds"
    site.assert_nothing_left()


def test_an_undo_that_fails_is_gone_on_with_until_nothing_is_left(site: Site):
    site.runtime.born = BoxState.FAILED
    site.runtime.stop_error = ServiceError("box_failed_to_stop", why="it hangs")
    reconciler = site.reconciler()
    operation = site.create()
    reconciler.reconcile_all()
    assert site.operation(operation).error["code"] == "box_failed_to_start"  # type: ignore[index]
    left = site.one()
    assert (left.status, left.desired) == ("failed", "absent")
    site.runtime.stop_error = None
    site.reconciler().reconcile_all()
    site.assert_nothing_left()


def test_a_new_server_gets_another_port_where_a_stranger_has_its_own(site: Site):
    site.runtime.starts.clear()
    operation = site.create()
    first = site.one().port
    real, calls = site.runtime.observe, []

    def observe(**arguments):
        calls.append(arguments["address"][1])
        seen = real(**arguments)
        if arguments["address"][1] == first and seen.state is BoxState.AWAKE:
            return type(seen)(state=BoxState.SILENT, stranger=True)
        return seen

    site.runtime.observe = observe
    assert run(site, operation).state == "succeeded"
    assert site.one().port != first
    assert list(site.ports()) == [site.one().port]
    assert json.loads(config(site, site.one(), "settings.json"))["listen"].endswith(f":{site.one().port}")


def test_start_and_stop(site: Site):
    server = site.made()
    assert run(site, site.ask("stop")).state == "succeeded"
    assert (site.one().status, site.runtime.running()) == ("stopped", [])
    done = run(site, site.ask("start"))
    assert states(done) == [(name, "succeeded") for name in ("write_box", "start_box", "wait_ready")]
    assert (site.one().status, site.runtime.running()) == ("running", [server.id])
    assert site.one().port == server.port


def test_a_start_that_fails_leaves_the_wish_and_the_reason(site: Site):
    site.made()
    run(site, site.ask("stop"))
    site.runtime.start_error = ServiceError("box_failed_to_start", why="no memory", log="log")
    done = run(site, site.ask("start"))
    assert (done.state, done.error) == ("failed", {"code": "box_failed_to_start", "params": {"why": "no memory"}, "log": "log"})
    server = site.one()
    assert (server.status, server.desired, server.reason) == ("failed", "running", done.error)


def test_a_start_replaces_a_box_that_failed(site: Site):
    server = site.made()
    failed = site.runtime.boxes[server.id]
    failed.state = BoxState.FAILED
    with site.registry.session() as session:
        session.get_one(Server, server.id).status = "failed"
    assert run(site, site.ask("start")).state == "succeeded"
    assert site.runtime.boxes[server.id] is not failed
    assert site.one().status == "running"


def test_delete_keeps_a_proven_copy_and_the_port_and_restore_brings_all_back(site: Site):
    server = site.made()
    site.set_users("alice")
    site.reconciler().reconcile_all()
    make_database(site.database(server), runs=["first", "second"])
    done = run(site, site.ask("delete"))
    assert states(done) == [(name, "succeeded") for name in ("stop_box", "snapshot", "remove_box")]
    deleted = site.one()
    assert deleted.status == "deleted"
    assert deleted.deleted_at is not None
    assert deleted.restorable_until == deleted.deleted_at + timedelta(days=14)
    assert (site.boxes.ids(), site.runtime.running(), site.kept.ids()) == ([], [], [server.id])
    assert site.ports()[server.port].server_id == server.id
    kept = site.kept.folder(server.id)
    assert sorted(path.name for path in kept.iterdir()) == ["manifest.json", "mlflow.db", "settings.json", "users.json"]
    assert SECRET not in "".join(path.read_text(errors="replace") for path in kept.iterdir())

    assert run(site, site.ask("restore")).state == "succeeded"
    back = site.one()
    assert (back.id, back.port, back.status, back.desired) == (server.id, server.port, "running", "running")
    assert (back.deleted_at, back.restorable_until) == (None, None)
    assert runs_in(site.database(server)) == ["first", "second"]
    assert "alice" in config(site, server, "users.json")
    site.reconciler().reconcile_all()
    assert site.kept.ids() == [], "not needed any more"


def test_a_name_that_was_taken_meanwhile_is_not_given_back(site: Site):
    old = site.made()
    run(site, site.ask("delete"))
    restore = Operation(server_id=old.id, kind="restore", group_name=GROUP.name, env_name="wine", requested_by="alice", state="pending")
    site.made()
    with site.registry.session() as session:
        session.add(restore)
    done = run(site, restore)
    assert done.error is not None
    assert done.error["code"] == "server_exists"
    with site.registry.reading() as session:
        assert session.get_one(Server, old.id).status == "deleted"
    assert site.kept.exists(old.id)


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_damaged_copy_is_not_put_back_and_stays(site: Site, damage: str):
    server = site.made()
    run(site, site.ask("delete"))
    database = site.kept.folder(server.id) / "mlflow.db"
    database.write_bytes(b"x" * database.stat().st_size) if damage == "changed" else database.unlink()
    done = run(site, site.ask("restore"))
    assert done.error is not None
    assert done.error["code"] == "snapshot_damaged"
    after = site.one()
    assert after.status == "deleted"
    assert after.deleted_at is not None
    assert (site.boxes.ids(), site.kept.ids()) == ([], [server.id])


def test_a_restore_that_fails_to_start_keeps_the_copy(site: Site):
    server = site.made()
    make_database(site.database(server), runs=["first"])
    run(site, site.ask("delete"))
    site.runtime.born = BoxState.FAILED
    assert run(site, site.ask("restore")).state == "failed"
    assert (site.one().status, site.boxes.ids(), site.kept.ids()) == ("deleted", [], [server.id])
    site.runtime.born = BoxState.AWAKE
    assert run(site, site.ask("restore")).state == "succeeded"
    assert runs_in(site.database(server)) == ["first"]


def test_a_copy_that_fails_leaves_the_server_as_it_was(site: Site):
    server = site.made()
    path = site.database(server)
    path.with_name("mlflow.db-wal").unlink(missing_ok=True)
    path.write_bytes(b"not a database" * 100)
    done = run(site, site.ask("delete"))
    assert done.error is not None
    assert (done.state, done.error["code"]) == ("failed", "snapshot_failed")
    assert states(done)[-1] == ("remove_box", "pending")
    assert (site.boxes.ids(), site.kept.ids()) == ([server.id], [])
    assert (site.one().desired, site.runtime.running()) == ("running", [server.id])


def test_a_stopped_server_whose_delete_fails_is_stopped_afterwards(site: Site):
    server = site.made()
    run(site, site.ask("stop"))
    site.database(server).write_bytes(b"not a database" * 100)
    assert run(site, site.ask("delete")).state == "failed"
    site.reconciler().reconcile_all()
    assert (site.one().desired, site.one().status, site.runtime.running()) == ("stopped", "stopped", [])


def test_a_full_disk_ends_a_delete_before_anything_is_removed(site: Site, monkeypatch: pytest.MonkeyPatch):
    server = site.made()
    monkeypatch.setattr("backend.atomic.shutil.disk_usage", lambda _path: type("Usage", (), {"free": 1})())
    done = run(site, site.ask("delete"))
    assert done.error is not None
    assert done.error["code"] == "disk_full"
    assert (site.boxes.ids(), site.kept.ids(), site.one().desired) == ([server.id], [], "running")


def test_sqlite_that_finds_the_disk_full_is_said_so_too(site: Site, monkeypatch: pytest.MonkeyPatch):
    server = site.made()
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL

    def full(_database: object) -> None:
        raise error

    monkeypatch.setattr("backend.files.snapshots._prove", full)
    done = run(site, site.ask("delete"))
    assert done.error is not None
    assert (done.error["code"], site.kept.ids(), site.boxes.ids()) == ("disk_full", [], [server.id])


@pytest.mark.parametrize(
    ("called", "why"),
    [
        ("backend.files.boxfiles.replace_file", "writing the tracking server's settings"),
        ("backend.plans.box_steps.wanted_box", LABELS["write_box"]),
    ],
)
def test_a_full_disk_ends_a_create_with_nothing_half_made(site: Site, monkeypatch: pytest.MonkeyPatch, called: str, why: str):
    def full(*_args: object, **_kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    operation = site.create()
    monkeypatch.setattr(called, full)
    done = run(site, operation)
    assert done.error is not None
    assert (done.error["code"], done.error["params"]) == ("disk_full", {"why": why})
    site.assert_nothing_left()


def test_purge_removes_the_copy_and_lets_the_port_rest(site: Site):
    server = site.made()
    run(site, site.ask("delete"))
    assert run(site, site.ask("purge", caller=ADMIN)).state == "succeeded"
    assert (site.server(), site.kept.ids()) == (None, [])
    port = site.ports()[server.port]
    assert port.server_id is None
    assert port.rests_until is not None
    assert port.rests_until > now() + timedelta(days=89)


def test_new_users_are_in_force_and_known_to_the_members(site: Site):
    server = site.made()
    assert run(site, site.set_users("alice", "job")).state == "succeeded"
    written = json.loads(config(site, server, "users.json"))["users"]
    assert [user["name"] for user in written] == ["alice", "job"]
    assert site.one().users == written
    assert site.one().users_updated_at is not None
    assert (site.one().known_to, site.one().former_members) == (["alice", "bob"], [])
    assert run(site, site.set_users()).state == "succeeded"
    assert (site.one().users, site.one().known_to) == ([], [])
    assert json.loads(config(site, server, "users.json")) == {"users": []}


def test_a_box_that_does_not_take_over_new_users_is_said_and_keeps_the_old(site: Site, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("backend.plans.box_steps.CONFIG_SECONDS", 0.2)
    server = site.made()
    site.runtime.boxes[server.id].rigid = True
    done = run(site, site.set_users("alice"))
    assert done.error is not None
    assert done.error["code"] == "box_ill"
    assert (site.one().users, json.loads(config(site, server, "users.json"))) == ([], {"users": []})


def test_nss_that_is_away_leaves_the_old_users_in_force(site: Site):
    server = site.made()
    operation = site.set_users("alice")
    site.directory.down = True
    done = run(site, operation)
    assert done.error is not None
    assert done.error["code"] == "directory_failed"
    assert (site.one().users, json.loads(config(site, server, "users.json"))) == ([], {"users": []})


def test_new_keys_are_tried_first_and_then_in_force(site: Site):
    server = site.made()
    assert run(site, site.set_storage("the new secret")).state == "succeeded"
    storage, key = site.store.probed[-1]
    assert (storage.bucket, storage.prefix, storage.endpoint_url) == ("bucket-a", server.prefix, "http://s3.example.org")
    assert key.secret_access_key.reveal() == "the new secret"
    assert "the new secret" in config(site, server, "s3/credentials")
    after = site.one()
    assert after.access_key_id == "AKIANEW"
    assert site.keyring.decrypt(after.secret_access_key).reveal() == "the new secret"


def test_new_keys_that_do_not_open_the_bucket_change_nothing(site: Site):
    server = site.made()
    site.store.error = ServiceError("storage_key_unknown", access_key_id="AKIANEW")
    done = run(site, site.set_storage("the new secret"))
    assert done.error is not None
    assert done.error["code"] == "storage_key_unknown"
    assert done.payload is None
    assert SECRET in config(site, server, "s3/credentials")
    assert site.one().access_key_id == "AKIATEST"


def test_new_keys_with_which_the_box_is_ill_are_taken_back(site: Site):
    server = site.made()
    site.runtime.boxes[server.id].state = BoxState.FAILED
    done = run(site, site.set_storage("the new secret"))
    assert done.error is not None
    assert done.error["code"] == "box_failed_to_start"
    assert states(done)[1] == ("write_box", "undone")
    assert SECRET in config(site, server, "s3/credentials")


def test_an_operation_whose_server_is_gone_ends(site: Site):
    operation = Operation(server_id=None, kind="start", group_name="g", env_name="e", requested_by="alice", state="running")
    with site.registry.session() as session:
        session.add(operation)
    done = run(site, operation)
    assert done.error is not None
    assert (done.state, done.error["code"]) == ("failed", "no_such_server")


def test_a_mistake_of_ours_ends_the_operation_with_a_word(site: Site, caplog: pytest.LogCaptureFixture):
    site.store.error = RuntimeError("a mistake")  # type: ignore[assignment]
    operation = site.create()
    done = run(site, operation)
    assert done.error == {"code": "internal", "params": {"request_id": operation.id}, "log": None}
    assert "a mistake" in caplog.text
    site.assert_nothing_left()


def test_a_version_that_is_gone_is_said(site: Site):
    site.made()
    run(site, site.ask("stop"))
    with site.registry.session() as session:
        session.query(Server).one().mlflow_version = "0.0.1"
    done = run(site, site.ask("start"))
    assert done.error is not None
    assert (done.error["code"], done.error["params"]) == ("version_missing", {"version": "0.0.1"})
    assert VERSION != "0.0.1"


def test_a_box_that_runs_already_is_taken_as_it_is(site: Site):
    operation = site.create()
    server = site.one()
    make_database(site.database(server))
    site.runtime.boxes[server.id] = FakeBox(site.boxes.directory(server.id))
    assert run(site, operation).state == "succeeded"
    assert site.runtime.starts == []
