"""A runtime that does not answer, as Docker's daemon while it is upgraded: what was asked waits for it, for some minutes, and says so."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backend.api.present import operation_view
from backend.domain import BoxState, Observation
from backend.errors import ServiceError
from backend.messages import describe_stored
from backend.registry.models import Operation
from backend.runtimes.containers import ContainerRuntime
from backend.runtimes.containers import Site as Containers
from backend.runtimes.docker import Engine, EngineConflictError
from backend.runtimes.keeper import ContainerKeeper
from tests.service.engine.running import running
from tests.service.engine.support import GROUP, FakeRuntime, Site, until

WAITS = "The runtime docker does not answer (there is no socket); waiting for it, some 5 minutes"


class DaemonRuntime(FakeRuntime):
    """Boxes behind a daemon: what is done to one of ``away`` fails as on a socket that is not there, while the box itself answers."""

    def __init__(self, socket: Path) -> None:
        super().__init__()
        self._engine = Engine(address=f"unix://{socket}", install="x", timeout=1)
        self.everything_is_away = False
        self.away: set[str] = set()
        self.refused = 0

    def ask(self, server_id: str) -> None:
        if self.everything_is_away or server_id in self.away:
            self.refused += 1
            self._engine.containers(fresh=True)

    def start(self, *, server_id: str, **how: Any) -> None:
        self.ask(server_id)
        super().start(server_id=server_id, **how)

    def stop(self, *, server_id: str, **how: Any) -> None:
        self.ask(server_id)
        super().stop(server_id=server_id, **how)

    def running(self) -> list[str]:
        self.ask("all")
        return super().running()

    def observe(self, *, server_id: str, **where: Any) -> Observation:
        seen = super().observe(server_id=server_id, **where)
        is_away = self.everything_is_away or server_id in self.away
        return Observation(state=BoxState.SILENT) if is_away and seen.state is BoxState.ABSENT else seen


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Its runtime is away; the keeper of its folders asks the same daemon. What waits is tried again at once."""
    monkeypatch.setattr("backend.plans.backoff.FIRST_SECONDS", 0.01)
    monkeypatch.setattr("backend.reconcile.reconciler.AGAIN_SECONDS", 0.05)
    runtime = DaemonRuntime(tmp_path / "docker.sock")
    site = Site(tmp_path / "state", runtime=runtime, ports=8, observe_seconds=0.05)
    for name in ("install", "remove"):
        real: Callable[..., Any] = getattr(site.boxes, name)

        def by_the_keeper(box: Any, real: Callable[..., Any] = real) -> Any:
            whose = getattr(box, "server_id", box)
            if whose is box or not site.boxes.directory(whose).exists():  # one that is prepared is written without the daemon
                runtime.ask(whose)
            return real(box)

        monkeypatch.setattr(site.boxes, name, by_the_keeper)
    yield site
    site.registry.close()
    site.kick.close()


def waiting(site: Site, operation: Operation) -> list[str]:
    """What its steps say that they wait for."""
    steps = operation_view(site.operation(operation), "en").steps
    return [step.detail for step in steps if step.detail is not None]


def asked(site: Site, what: str) -> Operation:
    return site.create() if what == "create" else site.ask(what)


@pytest.mark.parametrize(
    ("what", "status"), [("create", "running"), ("stop", "stopped"), ("start", "running"), ("delete", "deleted"), ("restore", "running")]
)
def test_what_is_asked_while_the_daemon_is_away_is_done_when_it_is_back(site: Site, what: str, status: str):
    if what != "create":
        site.made()
    for before in {"start": ["stop"], "restore": ["delete"]}.get(what, []):
        site.ask(before)
        site.reconciler().reconcile_all()
    site.runtime.everything_is_away = True
    with running(site.reconciler()):
        operation = asked(site, what)
        until(lambda: waiting(site, operation) == [WAITS], 10)
        tries = site.runtime.refused
        until(lambda: site.runtime.refused > tries + 2, 10)
        assert (site.operation(operation).state, site.operation(operation).finished_at) == ("running", None)
        assert site.one().status != "failed", "a server that answers is not said to have failed"
        site.runtime.everything_is_away = False
        until(lambda: site.operation(operation).finished_at, 10)
    assert (site.operation(operation).state, site.one().status, waiting(site, operation)) == ("succeeded", status, [])


def test_what_it_waits_for_is_told_in_the_readers_language(site: Site):
    site.made()
    site.runtime.everything_is_away = True
    operation = site.ask("stop")
    site.reconciler().reconcile_all()
    (step,) = operation_view(site.operation(operation), "ja").steps
    assert step.detail == "実行環境 docker が応答しません (ソケットがありません)。約 5 分間、応答を待ちます"


@pytest.mark.parametrize("what", ["create", "stop", "delete"])
def test_a_daemon_that_does_not_come_back_is_the_failure(site: Site, monkeypatch: pytest.MonkeyPatch, what: str):
    monkeypatch.setattr("backend.reconcile.reconciler.AWAY_SECONDS", 0.5)
    server = None if what == "create" else site.made()
    site.runtime.everything_is_away = True
    with running(site.reconciler()):
        operation = asked(site, what)
        until(lambda: site.operation(operation).finished_at, 20)
        assert site.runtime.refused > 3
    ended = site.operation(operation)
    told = describe_stored(ended.error, "en") or {}
    assert (ended.state, told["detail"], told["cure"], waiting(site, operation)) == (
        "failed",
        "The runtime docker does not answer: there is no socket",
        "Tell the admins; running servers keep running.",
        [],
    )
    site.runtime.everything_is_away = False
    if server is None:
        site.reconciler().reconcile_all()
        site.assert_nothing_left()
        return
    assert site.runtime.running() == [server.id]
    again = site.ask("stop")
    site.reconciler().reconcile_all()
    assert (site.operation(again).state, site.one().status) == ("succeeded", "stopped")


def test_one_that_waits_takes_no_others_place(site: Site, monkeypatch: pytest.MonkeyPatch):
    """As where the daemon answers all but for one container."""
    monkeypatch.setattr("backend.reconcile.reconciler.SLOW_THREADS", 1)
    stuck = site.made("stuck")
    site.runtime.away = {stuck.id}
    with running(site.reconciler(settings=replace(site.settings, reconciler_threads=1))):
        waits = site.ask("stop", "stuck")
        until(lambda: waiting(site, waits) == [WAITS], 10)
        others = [site.create(f"well-{number}") for number in range(3)]
        until(lambda: all(site.operation(each).state == "succeeded" for each in others), 20)
        assert site.operation(waits).finished_at is None
        site.runtime.away = set()
        until(lambda: site.operation(waits).state == "succeeded", 10)


def test_the_service_that_ends_meanwhile_leaves_it_to_its_next_start(site: Site):
    site.made()
    site.runtime.everything_is_away = True
    operation = site.ask("stop")
    with running(site.reconciler()):
        until(lambda: waiting(site, operation) == [WAITS], 10)
    assert site.operation(operation).finished_at is None
    site.runtime.everything_is_away = False
    site.reconciler().reconcile_all()
    assert (site.operation(operation).state, site.runtime.running()) == ("succeeded", [])


class Refusing:
    """A daemon that answers, and makes no container."""

    def images(self, _name: str) -> list[Any]:
        return [type("Image", (), {"id": "sha256:abc", "created": 1})()]

    def image_id(self, _name: str) -> str:
        return "sha256:abc"

    def run(self, *_arguments: Any, **_more: Any) -> tuple[int, str]:
        raise EngineConflictError("no such runtime")


def test_a_daemon_that_refuses_is_not_waited_for(site: Site, tmp_path: Path):
    for name in ("run", "data"):
        (tmp_path / "box" / name).mkdir(parents=True)
    containers = Containers(install="x", image="box:{version}", listen_address="127.0.0.1", networks={})
    runtime = ContainerRuntime(engine=Refusing(), site=containers)  # type: ignore[arg-type]
    keeper = ContainerKeeper(engine=Refusing(), image="box:{version}")  # type: ignore[arg-type]
    (tmp_path / "box" / "data" / "mlflow.db").touch()
    for refused in (
        lambda: runtime.migrate(server_id="a", directory=tmp_path / "box", mlflow_version="9.9.9", timeout=1),
        lambda: keeper.copy_database(tmp_path / "box", tmp_path / "taken.db"),
    ):
        with pytest.raises(ServiceError, match="no such runtime") as caught:
            refused()
        site.runtime.start_error = caught.value
        operation = site.create()
        site.reconciler().reconcile_all()
        ended = site.operation(operation)
        assert (ended.state, (ended.error or {})["code"], len(site.runtime.starts)) == ("failed", "runtime_refused", 1)
        site.runtime.starts.clear()


def test_looks_that_wait_for_the_daemon_keep_nobody_from_seeing_who_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """More servers than threads for looks, and a daemon that takes what is asked and never answers."""
    site = Site(tmp_path / "state", ports=6, reconciler_threads=2)
    for number in range(4):
        site.made(f"env-{number}")
    site.set_users("job", env="env-0")
    site.reconciler().reconcile_all()
    assert site.one("env-0").known_to == ["alice", "bob"]
    answers, asking = threading.Event(), threading.Semaphore(0)

    def observe(**_where: Any) -> Observation:
        asking.release()
        assert answers.wait(60)
        return Observation(state=BoxState.AWAKE)

    monkeypatch.setattr(site.runtime, "observe", observe)
    with running(site.reconciler()):
        try:
            for _thread in range(2):
                assert asking.acquire(timeout=10)
            site.directory.listed[GROUP.gid] = ["alice"]
            until(lambda: site.one("env-0").former_members == ["bob"], 10)
            assert not asking.acquire(blocking=False), "the looks still wait"
        finally:
            answers.set()
    site.registry.close()
