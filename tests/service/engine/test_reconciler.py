import errno
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from backend.domain import Box, BoxState, Caller, new_server_id
from backend.errors import ServiceError
from backend.reconcile import heartbeat
from backend.reconcile.orphans import find_orphans, remove_orphans
from backend.reconcile.reconciler import USER_PROBES
from backend.registry.models import Operation, Server, now
from backend.serving.wiring import make_copies
from backend.wishes import portpool
from tests.service.engine.contract_boxfiles import box_of
from tests.service.engine.running import running
from tests.service.engine.support import ADMIN, GROUP, SECRET, SIZE, Site, make_database, until

BOB = Caller(user="bob", uid=1002, groups=(GROUP,))


def change(site: Site, action: Callable[[Server], None], env: str = "wine") -> None:
    with site.registry.session() as session:
        action(session.scalars(select(Server).where(Server.env_name == env)).one())


def state(site: Site, operation: Operation) -> str:
    return site.operation(operation).state


def wide(tmp_path: Path, **settings: object) -> Site:
    return Site(tmp_path / "state", envs_dir=tmp_path / "envs", ports=60, **settings)


def test_a_kick_is_answered_at_once_and_steps_appear_as_they_happen(tmp_path: Path):
    site = wide(tmp_path, observe_seconds=600)
    site.store.hang = threading.Event()
    with running(site.reconciler()):
        until(lambda: heartbeat.seen_at(site.settings.run_dir))
        operation = site.create()
        until(lambda: [step["state"] for step in site.operation(operation).steps] == ["running", "pending", "pending", "pending"], 10)
        assert state(site, operation) == "running"
        site.store.hang.set()
        until(lambda: state(site, operation) == "succeeded", 20)


def test_what_was_asked_while_the_service_was_down_is_done_at_its_start(site: Site):
    operation = site.create()
    with running(site.reconciler()):
        until(lambda: state(site, operation) == "succeeded")


def test_fifty_creates_at_once_end_and_none_is_lost(tmp_path: Path):
    site = wide(tmp_path, reconciler_threads=4)
    with running(site.reconciler()), ThreadPoolExecutor(10) as pool:
        operations = list(pool.map(lambda number: site.create(f"env-{number}"), range(50)))
        until(lambda: all(state(site, operation) == "succeeded" for operation in operations), 120)
    with site.registry.reading() as session:
        servers = session.scalars(select(Server)).all()
        assert len({server.port for server in servers}) == 50
        assert {server.status for server in servers} == {"running"}
        assert site.runtime.running() == sorted(server.id for server in servers)
    assert sorted(site.runtime.starts) == site.runtime.running(), "each was started once"
    assert site.runtime.most_starting <= 4


def test_of_two_creates_of_one_name_exactly_one_wins(site: Site):
    gate, outcomes = threading.Barrier(2), []

    def create() -> None:
        gate.wait(10)
        try:
            outcomes.append(site.create().id)
        except ServiceError as error:
            outcomes.append(error.code)

    threads = [threading.Thread(target=create) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(outcome for outcome in outcomes if not outcome.startswith("op_")) == ["server_exists"]
    site.reconciler().reconcile_all()
    assert site.runtime.running() == [site.one().id]
    assert len(site.ports()) == 1


@pytest.mark.parametrize("hanging", [1, 20])
def test_object_stores_that_hang_keep_nobody_else_waiting(tmp_path: Path, hanging: int, monkeypatch: pytest.MonkeyPatch):
    """However many: of one user's, only some are asked at once, and the others in their turn."""
    monkeypatch.setattr("backend.reconcile.reconciler.SLOW_THREADS", USER_PROBES + 2)
    site = wide(tmp_path, reconciler_threads=2)
    site.store.hang, site.store.hang_bucket = threading.Event(), "hanging"
    with running(site.reconciler()):
        stuck = [site.create(f"stuck-{number}", bucket="hanging", caller=BOB) for number in range(hanging)]
        until(lambda: len(site.store.probed) == min(hanging, USER_PROBES))
        well = site.create("well")
        until(lambda: state(site, well) == "succeeded", 20)
        site.runtime.kill(site.one("well").id)
        until(lambda: site.runtime.running() == [site.one("well").id], 20)
        assert [state(site, operation) for operation in stuck].count("running") == min(hanging, USER_PROBES)
        site.store.hang.set()
        until(lambda: all(state(site, operation) == "succeeded" for operation in stuck), 60)


def test_a_start_that_hangs_keeps_nobody_else_waiting(tmp_path: Path):
    site = wide(tmp_path, reconciler_threads=2)
    site.runtime.hang = threading.Event()
    with running(site.reconciler()):
        stuck = site.create("stuck")
        until(lambda: site.runtime.starting == 1)
        hang, site.runtime.hang = site.runtime.hang, None
        well = site.create("well")
        until(lambda: state(site, well) == "succeeded", 20)
        hang.set()
        until(lambda: state(site, stuck) == "succeeded", 20)


def test_no_transaction_is_open_while_something_slow_is_done(site: Site):
    site.store.hang = threading.Event()
    operation = site.create()
    with running(site.reconciler()):
        until(lambda: state(site, operation) == "running")
        began = time.monotonic()
        with site.registry.session() as session:  # would wait 20 s for another writer
            session.get_one(Operation, operation.id).request_id = "r"
        assert time.monotonic() - began < 10
        site.store.hang.set()


def test_a_box_that_died_is_started_again_and_again_with_patience(site: Site):
    server = site.made()
    reconciler = site.reconciler()
    site.runtime.kill(server.id)
    reconciler.reconcile_all()
    assert site.runtime.running() == [server.id]
    site.runtime.kill(server.id)
    reconciler.reconcile_all()
    assert site.runtime.running() == [], "tried a moment ago"
    operation = site.ask("stop")
    reconciler.reconcile_all()
    assert state(site, operation) == "succeeded"
    site.ask("start")
    reconciler.reconcile_all()
    assert site.runtime.running() == [server.id], "who asks need not wait"


@pytest.mark.parametrize(
    ("error", "code", "why", "log"),
    [
        (ServiceError("box_failed_to_start", why="no memory", log="log"), "box_failed_to_start", "no memory", "log"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk_full", "putting the tracking server in order", None),
        (OSError(errno.EAGAIN, "Resource temporarily unavailable"), "internal", None, None),
    ],
)
def test_a_repair_that_fails_says_why_and_goes_on(site: Site, error: Exception, code: str, why: str | None, log: str | None):
    server = site.made()
    site.runtime.kill(server.id)
    site.runtime.start_error = error
    site.reconciler().reconcile_all()
    reason = site.one().reason or {}
    assert (site.one().status, reason["code"], reason["params"].get("why"), reason["log"]) == ("failed", code, why, log)
    site.runtime.start_error = None
    reconciler = site.reconciler()
    reconciler.reconcile_all()
    reconciler.reconcile_all()
    assert (site.one().status, site.one().reason) == ("running", None)


@pytest.mark.parametrize(
    ("seen", "status"),
    [
        (BoxState.AWAKE, "running"),
        (BoxState.WAKING, "running"),
        (BoxState.DRAINING, "running"),
        (BoxState.ASLEEP, "sleeping"),
        (BoxState.SILENT, "running"),
    ],
)
def test_the_status_is_what_is_seen(site: Site, seen: BoxState, status: str):
    server = site.made()
    site.runtime.boxes[server.id].state = seen
    updated_at = site.one().updated_at
    site.reconciler().reconcile_all()
    assert site.one().status == status
    assert (site.one().updated_at != updated_at) == (status == "sleeping"), "news change the time, a look does not"


def test_an_ill_box_is_failed_with_its_reason_and_started_anew(site: Site):
    server = site.made()
    box = site.runtime.boxes[server.id]
    box.state, box.detail = BoxState.FAILED, "MLflow ended with status 3"
    reconciler = site.reconciler()
    reconciler.reconcile_all()
    assert site.one().status == "failed"
    words = "the guard runs: the fake's last words"
    assert site.one().reason == {"code": "box_ill", "params": {"why": "MLflow ended with status 3"}, "log": words}
    assert site.runtime.boxes[server.id] is not box
    reconciler.reconcile_all()
    assert site.one().status == "running"


def test_a_silent_box_is_given_time_and_then_started_anew(site: Site, monkeypatch: pytest.MonkeyPatch):
    server = site.made()
    box = site.runtime.boxes[server.id]
    box.state = BoxState.SILENT
    reconciler = site.reconciler()
    reconciler.reconcile_all()
    assert site.runtime.boxes[server.id] is box
    monkeypatch.setattr("backend.reconcile.look.SILENT_SECONDS", -1)
    reconciler.reconcile_all()
    assert site.runtime.boxes[server.id] is not box


def test_a_stranger_on_the_port_is_said_and_waited_for(site: Site):
    server = site.made()
    site.runtime.boxes[server.id].stranger = True
    site.runtime.boxes[server.id].state = BoxState.SILENT
    site.runtime.start_error = ServiceError("port_taken", port=server.port)
    site.reconciler().reconcile_all()
    assert (site.one().status, site.one().reason) == ("failed", {"code": "port_taken", "params": {"port": server.port}, "log": None})
    assert site.one().port == server.port, "it is its own for life"
    site.runtime.start_error = None
    reconciler = site.reconciler()
    reconciler.reconcile_all()
    reconciler.reconcile_all()
    assert site.one().status == "running"


def test_one_that_should_be_stopped_is_stopped(site: Site):
    site.made()

    def wish(server: Server) -> None:
        server.desired = "stopped"

    change(site, wish)
    reconciler = site.reconciler()
    reconciler.reconcile_all()
    reconciler.reconcile_all()
    assert (site.runtime.running(), site.one().status) == ([], "stopped")


def test_settings_that_differ_are_put_right(site: Site):
    server = site.made()
    users = site.boxes.directory(server.id) / "config" / "users.json"
    users.write_text('{"users": [{"name": "intruder", "bcrypt": "x"}]}')
    site.reconciler().reconcile_all()
    assert json.loads(users.read_text()) == {"users": []}


def test_the_time_to_restore_ends(site: Site):
    server = site.made()
    site.ask("delete")
    site.reconciler().reconcile_all()

    def over(server: Server) -> None:
        server.restorable_until = now() - timedelta(seconds=1)

    change(site, over)
    site.reconciler().reconcile_all()
    assert (site.server(), site.kept.ids()) == (None, [])
    assert site.ports()[server.port].rests_until is not None


def test_a_group_that_is_another_now_freezes_its_servers(site: Site):
    server = site.made()
    site.directory.gids[GROUP.name] = 30001
    site.runtime.kill(server.id)
    site.reconciler().reconcile_all()
    assert site.runtime.running() == [], "no repair"
    frozen = site.one()
    assert frozen.status == "failed", "nobody is told that it runs"
    assert frozen.reason == {"code": "group_changed", "params": {"group": GROUP.name, "now": 30001, "then": GROUP.gid}, "log": None}
    operation = site.ask("stop", caller=ADMIN)
    site.reconciler().reconcile_all()
    assert state(site, operation) == "succeeded", "what admins ask is done"
    site.directory.gids[GROUP.name] = GROUP.gid
    reconciler = site.reconciler()
    reconciler.reconcile_all()
    assert (site.one().status, site.one().reason) == ("stopped", None)


def test_nss_that_is_away_freezes_nothing(site: Site):
    server = site.made()
    site.directory.down = True
    site.runtime.kill(server.id)
    site.reconciler().reconcile_all()
    assert site.runtime.running() == [server.id]
    assert site.one().reason is None


def test_boxes_that_no_row_knows_are_said_and_removed_only_when_asked(site: Site, caplog: pytest.LogCaptureFixture):
    stray = new_server_id()
    box: Box = box_of(stray)
    site.boxes.install(box)
    make_database(site.boxes.directory(stray) / "data" / "mlflow.db")
    site.runtime.start(server_id=stray, directory=site.boxes.directory(stray), mlflow_version="9.9.9", size=SIZE)
    for folder in site.settings.copies_dirs:
        (folder / stray).mkdir(parents=True)
    server = site.made()
    site.reconciler().reconcile_all()
    assert stray in caplog.text
    world = {"runtime": site.runtime, "boxes": site.boxes, "copies": make_copies(site.settings)}
    orphans = find_orphans(registry=site.registry, **world)
    assert vars(orphans) == dict.fromkeys(("running", "directories", "kept", "previous", "replaced"), (stray,))
    with site.registry.session() as session:
        trial_port = portpool.allocate(session, site.settings, stray)
    remove_orphans(orphans, registry=site.registry, timeout=1, **world)
    assert not find_orphans(registry=site.registry, **world)
    assert (site.runtime.running(), site.boxes.ids()) == ([server.id], [server.id])
    assert (trial_port in site.ports(), server.port in site.ports()) == (False, True)


def test_old_operations_are_forgotten_and_young_ones_kept(site: Site):
    site.made()
    old, young = (
        Operation(kind="stop", group_name="g", env_name="e", requested_by="a", state="succeeded", finished_at=now() - timedelta(days=days))
        for days in (31, 29)
    )
    with site.registry.session() as session:
        session.add_all([old, young])
    site.reconciler().reconcile_all()
    with site.registry.reading() as session:
        assert session.get(Operation, old.id) is None
        assert session.get(Operation, young.id) is not None


def test_two_reconcilers_take_turns(site: Site):
    with running(site.reconciler()) as first_stop:
        until(lambda: heartbeat.seen_at(site.settings.run_dir))
        with running(site.reconciler()):
            operation = site.create()
            until(lambda: state(site, operation) == "succeeded")
            first_stop.set()
            another = site.create("another")
            until(lambda: state(site, another) == "succeeded")


def test_it_ends_at_once_and_leaves_what_is_under_way_to_the_next(tmp_path: Path):
    site = wide(tmp_path)
    site.runtime.born = BoxState.WAKING
    operation = site.create()
    with running(site.reconciler()):
        until(site.runtime.running)
        began = time.monotonic()
    assert time.monotonic() - began < 10
    assert state(site, operation) == "running"
    site.runtime.boxes[site.one().id].state = BoxState.AWAKE
    site.reconciler().reconcile_all()
    assert state(site, operation) == "succeeded"


def test_a_registry_that_fails_for_a_while_does_not_end_it(site: Site, monkeypatch: pytest.MonkeyPatch):
    real, failures = site.registry.reading, []

    def reading():
        if len(failures) < 3:
            failures.append(1)
            raise OSError(5, "Input/output error")
        return real()

    monkeypatch.setattr(site.registry, "reading", reading)
    with running(site.reconciler()):
        until(lambda: len(failures) == 3)
        operation = site.create()
        until(lambda: state(site, operation) == "succeeded")


def test_nothing_secret_is_logged(site: Site, caplog: pytest.LogCaptureFixture):
    caplog.set_level("DEBUG")
    site.made()
    for ask in (lambda: site.set_storage("the new secret"), lambda: site.set_users("alice"), lambda: site.ask("delete")):
        operation = ask()
        site.reconciler().reconcile_all()
        assert state(site, operation) == "succeeded"
    assert SECRET not in caplog.text
    assert "the new secret" not in caplog.text


def test_an_operation_that_cannot_even_begin_waits_for_its_cure(site: Site, caplog: pytest.LogCaptureFixture):
    site.made()
    operation = site.set_users("alice")
    keys = site.settings.keys_file
    keys.rename(keys.with_suffix(".away"))
    reconciler = site.reconciler()
    reconciler.reconcile_all()
    assert state(site, operation) == "pending"
    assert "put it back from the backup" in caplog.text
    tries = caplog.text.count("Traceback")
    reconciler.reconcile_all()
    assert caplog.text.count("Traceback") == tries, "not tried again at every look"
    keys.with_suffix(".away").rename(keys)
    site.reconciler().reconcile_all()
    assert state(site, operation) == "succeeded"
