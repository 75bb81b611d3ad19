"""An upgrade: tried on a copy, no write lost, and whatever fails leaves the old version serving."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from backend.domain import BoxState
from backend.errors import ServiceError
from backend.files.snapshots import DatabaseCopies
from backend.registry.models import Operation, Server, now
from tests.service.engine.running import running
from tests.service.engine.support import ADMIN, NEWER, SIZE, VERSION, Site, asking, make_database, runs_in, schema_of, until

DOWN = ServiceError("box_failed_to_start", why="no jobs")
UNFIT = ServiceError("version_unfit", version=NEWER, why="GET / is answered with 500")
BROKEN = ServiceError("migration_failed", version=NEWER, why="no such table", log="the last lines")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "state", ports=6)


def test_the_stand_ins_are_this_tests_alone(site: Site, tmp_path: Path):
    assert [folder.parent for folder in site.settings.envs_dir.iterdir()] == [tmp_path / "envs"] * len(site.stand_ins)


def assert_nothing_of_the_trial_is_left(site: Site, *, previous: bool) -> None:
    server = site.one()
    assert site.runtime.running() == [server.id]
    assert site.boxes.ids() == [server.id]
    assert list(site.ports()) == [server.port]
    assert server.trial_id is None
    assert site.replaced() == []
    assert site.previous() == ([server.id] if previous else [])


def test_an_upgrade(site: Site):
    server = site.made()
    make_database(site.database(server), runs=["first"])
    site.trial.during = lambda: make_database(site.database(server), runs=["written during the trial"])
    operation = site.upgrade()
    site.reconciler().reconcile_all()
    assert site.operation(operation).state == "succeeded", site.operation(operation).error
    after = site.one()
    assert (after.mlflow_version, after.previous_version, after.status, after.port) == (NEWER, VERSION, "running", server.port)
    assert after.previous_until is not None
    assert runs_in(site.database(server)) == ["first", "written during the trial"]
    assert schema_of(site.database(server)) == NEWER
    assert schema_of(site.kept_previous(server) / "mlflow.db") is None
    assert_nothing_of_the_trial_is_left(site, previous=True)


def test_the_trials_box_lets_no_user_in_and_is_nobodys_orphan(site: Site):
    server = site.made()
    site.set_users("alice")
    site.reconciler().reconcile_all()
    seen: dict[str, object] = {}

    def look() -> None:
        row = site.one()
        assert row.trial_id is not None
        folder = site.boxes.directory(row.trial_id) / "config"
        seen.update(users=(folder / "users.json").read_text(), settings=(folder / "settings.json").read_text(), orphans=site.orphans())

    site.trial.during = look
    site.upgrade()
    site.reconciler().reconcile_all()
    assert "alice" not in str(seen["users"])
    assert f"127.0.0.1:{server.port}" not in str(seen["settings"])
    assert not seen["orphans"]
    assert "alice" in (site.boxes.directory(server.id) / "config" / "users.json").read_text()


def test_what_acts_by_itself_is_off_while_a_version_is_tried_and_proven(tmp_path: Path):
    size = replace(SIZE, genai_jobs=True, gateway=True, gateway_private=True)
    site = Site(tmp_path / "state", ports=6, sizes=(size,))
    server = site.made()
    names = ("genai_jobs", "allow_gateway", "gateway_private", "webhooks")
    seen: list[dict[str, object]] = []

    def note(server_id: str | None) -> None:
        settings = json.loads((site.boxes.directory(server_id or "") / "config" / "settings.json").read_text())
        seen.append({name: settings.get(name, True) for name in names})

    site.trial.during = lambda: note(site.one().trial_id)
    site.trial.while_proven = lambda: note(server.id)
    site.upgrade()
    site.reconciler().reconcile_all()
    note(server.id)
    assert seen == [dict.fromkeys(names, False), dict.fromkeys(names, False), dict.fromkeys(names, True)]


def failing(site: Site, where: str) -> Callable[[str], None]:
    """What makes the start with the new version fail, at one of its last two steps, and lets the old version start."""

    def at(point: str) -> None:
        if point == "upgrade.take_version.noted":
            site.runtime.start_error = DOWN if where == "start_box" else None
            site.runtime.born = BoxState.FAILED if where == "wait_ready" else BoxState.AWAKE
        elif point.endswith("undoing"):
            site.runtime.start_error, site.runtime.born = None, BoxState.AWAKE

    return at


@pytest.mark.parametrize("where", ["migrate_copy", "try_version", "prove_version", "start_box", "wait_ready"])
def test_what_fails_leaves_the_old_version_serving(site: Site, where: str):
    server = site.made()
    make_database(site.database(server), runs=["first"])
    if where == "migrate_copy":
        site.runtime.migrate_error = BROKEN
    elif where == "try_version":
        site.trial.error = UNFIT
    elif where == "prove_version":
        site.trial.look_error = UNFIT
    operation = site.upgrade()
    site.reconciler(at=failing(site, where)).reconcile_all()
    done = site.operation(operation)
    assert done.state == "failed"
    assert {row["name"]: row["state"] for row in done.steps}[where] == "failed"
    after = site.one()
    assert (after.mlflow_version, after.status, after.desired, after.previous_version) == (VERSION, "running", "running", None)
    assert runs_in(site.database(server)) == ["first"]
    assert schema_of(site.database(server)) is None
    assert site.settings_of(server)["mlflow_version"] == VERSION
    assert site.settings_of(server)["listen"] == f"127.0.0.1:{server.port}"
    if where in {"migrate_copy", "try_version"}:
        assert site.runtime.starts.count(server.id) == 1, "it was never away"
    assert_nothing_of_the_trial_is_left(site, previous=False)


def test_nothing_that_was_written_to_the_new_version_is_taken_back(site: Site):
    server = site.made()
    make_database(site.database(server), runs=["first"])
    fails = failing(site, "wait_ready")

    def at(point: str) -> None:
        fails(point)
        if point == "upgrade.start_box.done":
            make_database(site.database(server), runs=["written before it failed"])

    operation = site.upgrade()
    site.reconciler(at=at).reconcile_all()
    assert (site.operation(operation).error or {})["code"] == "version_down"
    assert (site.one().mlflow_version, site.one().previous_version) == (NEWER, VERSION)
    assert runs_in(site.database(server)) == ["first", "written before it failed"]
    assert (site.previous(), site.replaced()) == ([server.id], [])
    site.ask("rollback")
    site.reconciler().reconcile_all()
    assert (site.one().mlflow_version, site.one().status, runs_in(site.database(server))) == (VERSION, "running", ["first"])


def test_a_server_that_was_stopped_stays_stopped(site: Site):
    server = site.made()
    site.ask("stop")
    site.reconciler().reconcile_all()
    operation = site.upgrade()
    site.reconciler().reconcile_all()
    assert site.operation(operation).state == "succeeded", site.operation(operation).error
    after = site.one()
    assert (after.mlflow_version, after.status, site.runtime.running()) == (NEWER, "stopped", [])
    assert schema_of(site.database(server)) == NEWER


def test_a_roll_back_for_which_no_port_is_free_is_refused_before_the_server_stops(tmp_path: Path):
    site = Site(tmp_path / "state", ports=2, port_rest_days=0)
    server = site.made()
    site.upgrade()
    site.reconciler().reconcile_all()
    second, started, passed = site.made("second"), len(site.runtime.starts), list[str]()
    asked = site.ask("rollback")
    site.reconciler(at=passed.append).reconcile_all()
    assert (site.operation(asked).error or {})["code"] == "ports_exhausted"
    assert "rollback.stop_box.begun" not in passed
    assert (site.one().mlflow_version, site.one().status, len(site.runtime.starts)) == (NEWER, "running", started)
    assert (site.runtime.running(), site.one().trial_id) == (sorted([server.id, second.id]), None)
    for what in ("delete", "purge"):
        site.ask(what, env="second", caller=ADMIN)
        site.reconciler().reconcile_all()
    again = site.ask("rollback")
    site.reconciler().reconcile_all()
    assert site.operation(again).state == "succeeded", site.operation(again).error
    assert site.one().mlflow_version == VERSION


def test_an_upgrade_can_be_rolled_back_and_that_too(site: Site):
    server = site.made()
    make_database(site.database(server), runs=["first"])
    site.upgrade()
    site.reconciler().reconcile_all()
    make_database(site.database(server), runs=["second"])
    operation = site.ask("rollback")
    site.reconciler().reconcile_all()
    assert site.operation(operation).state == "succeeded", site.operation(operation).error
    assert (site.one().mlflow_version, site.one().previous_version) == (VERSION, NEWER)
    assert runs_in(site.database(server)) == ["first"]
    assert runs_in(site.kept_previous(server) / "mlflow.db") == ["first", "second"]
    site.ask("rollback")
    site.reconciler().reconcile_all()
    assert site.one().mlflow_version == NEWER
    assert runs_in(site.database(server)) == ["first", "second"]
    assert_nothing_of_the_trial_is_left(site, previous=True)


def test_upgrades_take_one_place_each(tmp_path: Path):
    site = Site(tmp_path / "state", ports=9, reconciler_threads=1)
    for env in ("one", "two", "three"):
        site.made(env)
    site.ask("stop", env="three")
    site.reconciler().reconcile_all()

    def all_succeed(*asked: Operation) -> None:
        until(lambda: {site.operation(operation).state for operation in asked} == {"succeeded"})

    with running(site.reconciler()):
        all_succeed(site.upgrade("one"), site.upgrade("two"), site.ask("start", env="three"))
        all_succeed(site.ask("rollback", env="one"), site.ask("rollback", env="two"))


def test_what_is_refused(site: Site):
    site.made()
    for version, code in (("0.1", "version_missing"), (VERSION, None)):
        if code is None:
            assert site.upgrade(version=version).state == "succeeded", "it has that version"
            continue
        with pytest.raises(ServiceError) as caught:
            site.upgrade(version=version)
        assert caught.value.code == code
    with pytest.raises(ServiceError) as caught:
        site.ask("rollback")
    assert caught.value.code == "nothing_to_roll_back"
    site.upgrade()
    site.reconciler().reconcile_all()
    with pytest.raises(ServiceError) as caught:
        site.upgrade(version=VERSION)
    assert caught.value.code == "version_older"


def test_what_was_before_goes_at_its_time_and_not_in_a_transaction(site: Site, monkeypatch: pytest.MonkeyPatch):
    server = site.made()
    site.upgrade()
    site.reconciler().reconcile_all()
    with site.registry.session() as session:
        session.get_one(Server, server.id).previous_until = now() - timedelta(seconds=1)
    with pytest.raises(ServiceError):
        site.ask("rollback")
    removed = []
    remove = DatabaseCopies.remove

    def watched(copies: DatabaseCopies, server_id: str) -> None:
        with site.registry.session():  # one writer at a time: this would wait for another's end
            removed.append(server_id)
        remove(copies, server_id)

    monkeypatch.setattr(DatabaseCopies, "remove", watched)
    site.reconciler().reconcile_all()
    assert removed == [server.id]
    assert site.previous() == []
    assert site.one().previous_version is None


def test_another_size(site: Site):
    server = site.made()
    operation = site.requests.resize(asking(), "large")
    site.reconciler().reconcile_all()
    assert site.operation(operation).state == "succeeded", site.operation(operation).error
    assert site.one().size == "large"
    assert site.runtime.sizes[server.id].name == "large"
    assert site.settings_of(server)["workers"] == 4
    assert site.requests.resize(asking(), "large").state == "succeeded"


def test_a_size_with_which_it_does_not_start_is_taken_back(site: Site):
    server = site.made()
    site.runtime.born = BoxState.FAILED
    operation = site.requests.resize(asking(), "large")
    site.trial.during = None
    site.reconciler(at=lambda point: setattr(site.runtime, "born", BoxState.AWAKE) if point.endswith("undoing") else None).reconcile_all()
    assert site.operation(operation).state == "failed"
    assert (site.one().size, site.runtime.sizes[server.id].name) == ("small", "small")
    assert site.runtime.running() == [server.id]
