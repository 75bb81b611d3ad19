"""How the daemon is asked, against a program that stands for one: one that hangs, refuses, is late, or ends while it answers."""

from __future__ import annotations

import io
import tarfile
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backend.domain import BoxState
from backend.errors import ServiceError
from backend.runtimes.boxlogs import tail_of
from backend.runtimes.containers import ContainerRuntime, Site
from backend.runtimes.docker import Engine, EngineConflictError
from tests.service.engine.docker_stand_in import ROW, UNSTOPPABLE, Daemon, Refusal, stand_in

ASKERS = 8
GATE, MLFLOW = "aihub-x-gate", "aihub-x-mlflow"
NETWORKS = {
    GATE: {"subnet": "10.9.0.0/24", "driver": "bridge", "labels": {"org.aihub.install": "x"}},
    MLFLOW: {"subnet": "10.9.1.0/24", "driver": "bridge", "labels": {"org.aihub.install": "x"}},
}
OLD = 1_700_000_000
BUSY = "unable to remove filesystem for busy: device or resource busy"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with stand_in(tmp_path / "docker.sock") as running:
        yield running


@pytest.fixture
def engine(daemon: Daemon) -> Iterator[Engine]:
    engine = Engine(address=f"unix://{daemon.server_address!s}", install="x", timeout=1)
    yield engine
    engine.close()


@pytest.fixture
def runtime(engine: Engine) -> ContainerRuntime:
    return ContainerRuntime(engine=engine, site=Site(install="x", image="aihub-box:{version}", listen_address="127.0.0.1", networks={}))


def at_once(question: Callable[[], int], askers: int = ASKERS) -> list[str | int]:
    """What each of those who ask at the same time is told: a failure's code, or the answer."""
    together = threading.Barrier(askers)

    def ask(_number: int) -> str | int:
        together.wait()
        try:
            return question()
        except ServiceError as error:
            return error.code

    with ThreadPoolExecutor(askers) as pool:
        return list(pool.map(ask, range(askers)))


def ask_at_once(engine: Engine) -> list[str | int]:
    return at_once(lambda: len(engine.containers()))


def archive_of(text: bytes) -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as archive:
        member = tarfile.TarInfo("guard.log")
        member.size = len(text)
        archive.addfile(member, io.BytesIO(text))
    return held.getvalue()


def test_those_who_ask_at_once_share_an_answer(daemon: Daemon, engine: Engine):
    assert ask_at_once(engine) == [1] * ASKERS
    assert daemon.listings == 1


def test_a_daemon_that_hangs_is_waited_for_once_and_not_once_for_each_server(daemon: Daemon, engine: Engine):
    daemon.hangs.set()
    assert ask_at_once(engine) == ["runtime_unavailable"] * ASKERS
    assert daemon.listings == 1
    daemon.hangs.clear()
    assert len(engine.containers(fresh=True)) == 1


def test_a_closed_engine_connects_anew(engine: Engine):
    assert len(engine.containers()) == 1
    engine.close()
    assert len(engine.containers(fresh=True)) == 1


def test_one_off_containers_that_were_cut_short_are_removed(daemon: Daemon, engine: Engine):
    old, young = OLD, int(time.time())
    once = {"Labels": {"org.aihub.once": "prepare"}}
    daemon.rows += [
        {"Id": "never-started", "State": "created", "Created": old, **once},
        {"Id": "has-ended", "State": "exited", "Created": old, **once},
        {"Id": "runs-for-long", "State": "running", "Created": old, **once},
        {"Id": "about-to-start", "State": "created", "Created": young, **once},
        {"Id": "is-being-removed", "State": "removing", "Created": old, **once},
    ]
    assert [found.id for found in engine.containers()] == ["abc"]
    engine.remove_left()
    assert daemon.removed == ["never-started", "has-ended"]


def test_a_servers_container_that_was_made_too_late_is_removed(daemon: Daemon, engine: Engine, runtime: ContainerRuntime):
    """Its create was answered after the service had given up, so its row may be gone. One that somebody is about to start stays."""
    server = {"Labels": {"org.aihub.server": "a", "org.aihub.role": "gate"}}
    daemon.rows += [
        {"Id": "never-started", "State": "created", "Created": OLD, **server},
        {"Id": "about-to-start", "State": "created", "Created": int(time.time()), **server},
        {"Id": "runs", "State": "running", "Created": OLD, **server},
        {"Id": "restarts", "State": "restarting", "Created": OLD, **server},
        {"Id": "has-ended", "State": "exited", "Created": OLD, **server},
    ]
    runtime.tidy()
    assert daemon.removed == ["never-started"]
    assert daemon.unforced == {"never-started"}, "where it was started meanwhile, it is not killed"


def test_a_container_is_not_taken_for_left_behind_while_a_slow_daemon_may_still_answer(daemon: Daemon):
    """A create and a start of each of two containers."""
    daemon.rows = [{"Id": "slow", "State": "created", "Created": int(time.time()) - 3000, "Labels": {"org.aihub.server": "a"}}]
    slow = Engine(address=f"unix://{daemon.server_address!s}", install="x", timeout=900)
    slow.remove_left()
    slow.close()
    assert daemon.removed == []


def test_one_container_that_cannot_be_removed_is_in_no_others_way(daemon: Daemon, engine: Engine, caplog: pytest.LogCaptureFixture):
    daemon.rows = [{"Id": each, "State": "dead", "Created": OLD, "Labels": {"org.aihub.once": "copy"}} for each in ("busy", "free")]
    daemon.refuse(Refusal("DELETE", "/busy?", 500, BUSY))
    for _pass in range(2):
        engine.remove_left()
    assert daemon.removed == ["free", "free"]
    (said,) = [record.getMessage() for record in caplog.records]
    assert "busy" in said
    assert BUSY in said


def test_a_one_off_container_that_changes_a_database_ends_with_its_server(
    daemon: Daemon, engine: Engine, runtime: ContainerRuntime, tmp_path: Path
):
    """Whose service was killed; it would go on writing beside the next one. A copy that somebody takes meanwhile goes on."""
    migration = {"org.aihub.once": "migrate", "org.aihub.writes": "a"}
    daemon.rows = [
        {"Id": "migration", "State": "running", "Created": int(time.time()), "Labels": migration},
        {"Id": "of-another", "State": "running", "Created": int(time.time()), "Labels": {**migration, "org.aihub.writes": "b"}},
        {"Id": "copy", "State": "running", "Created": int(time.time()), "Labels": {"org.aihub.once": "copy"}},
    ]
    assert runtime.running() == []
    runtime.stop(server_id="a", directory=tmp_path, timeout=1)
    assert daemon.removed == ["migration"]


def test_another_version_in_the_daemons_place_is_asked_in_its_own_words(daemon: Daemon, engine: Engine):
    assert len(engine.containers(fresh=True)) == 1
    daemon.api = "1.51"
    assert ask_at_once(engine) == [1] * ASKERS
    assert len(engine.containers(fresh=True)) == 1


@pytest.mark.parametrize("about", [{"Rootless": True}, {"SecurityOptions": ["name=seccomp,profile=builtin", "name=rootless"]}])
def test_a_daemon_without_root_makes_no_container(daemon: Daemon, engine: Engine, about: dict[str, object]):
    engine.ensure_root()
    engine.close()
    daemon.about = about
    with pytest.raises(ServiceError) as caught:
        engine.create({"image": "sha256:abc"})
    assert (caught.value.code, caught.value.params) == ("runtime_rootless", {"address": engine.address})


def test_a_container_that_is_being_removed_has_no_log(daemon: Daemon, engine: Engine):
    daemon.refuse(
        Refusal("GET", "/logs?", 409, "can not get logs from container which is dead or marked for removal"),
        Refusal("GET", "/archive?", 500, "container is dead or marked for removal"),
    )
    assert engine.log("abc", 1) == ""
    assert engine.tail("abc", "/box/log/guard.log", 1) == []


@pytest.mark.parametrize(("cut", "breaks_off"), [(None, True), (600, False)], ids=["daemon ends", "log is cut"])
def test_a_log_that_breaks_off_while_it_is_read_is_none(daemon: Daemon, engine: Engine, cut: int | None, breaks_off: bool):
    whole = archive_of(b"first\nlast\n" * 1000)
    daemon.archive = whole
    assert engine.tail("abc", "/box/log/guard.log", 1) == ["last"]
    daemon.archive, daemon.breaks_off = whole[:cut], breaks_off
    assert engine.tail("abc", "/box/log/guard.log", 1) == []


def test_of_a_long_log_only_its_end_is_in_memory():
    """As long as the bound allows, which code in a box can make its log without writing that; many may be read at once."""
    begun = tarfile.TarInfo("mlflow.log")
    begun.size = 32 * 1024**2 + 5

    def parts() -> Iterator[bytes]:
        yield begun.tobuf()
        yield from (b"\0" * 1024**2 for _ in range(32))
        yield b"\nlast" + b"\0" * (512 - 5) + b"\0" * 1024

    tracemalloc.start()
    try:
        assert tail_of(parts(), 1) == ["last"]
        assert tracemalloc.get_traced_memory()[1] < 8 * 1024**2
    finally:
        tracemalloc.stop()


def test_a_container_that_somebody_else_is_removing_is_waited_for(daemon: Daemon, runtime: ContainerRuntime, tmp_path: Path):
    daemon.rows = [{**ROW, "State": "removing"}]
    daemon.refuse(Refusal("DELETE", "/abc?", 409, "removal of container abc is already in progress", times=3))
    runtime.stop(server_id="k3v9x2m7q4ab", directory=tmp_path, timeout=1)
    assert daemon.removed == ["abc"]


@pytest.mark.parametrize("word", ["removal of container abc is already in progress", BUSY])
def test_a_removal_that_does_not_end_well_is_said(daemon: Daemon, engine: Engine, word: str):
    daemon.refuse(
        Refusal("DELETE", "/abc?", 409, "removal of container abc is already in progress", times=2), Refusal("DELETE", "", 409, word)
    )
    with pytest.raises(EngineConflictError, match=word):
        engine.remove("abc")


@pytest.mark.parametrize("status", [403, 404, 500])
def test_a_daemon_whose_answers_are_refused_says_so_of_all(
    daemon: Daemon, engine: Engine, runtime: ContainerRuntime, tmp_path: Path, status: int
):
    """As by a proxy that lets few questions through."""
    daemon.refuse(Refusal("GET", "/v1.41/", status, "not for you"))
    questions: list[Callable[[], object]] = [
        runtime.running,
        runtime.versions,
        runtime.tidy,
        engine.ensure_root,
        lambda: engine.ensure_networks(NETWORKS),
        lambda: runtime.stop(server_id="k3v9x2m7q4ab", directory=tmp_path, timeout=1),
    ]
    for question in questions:
        with pytest.raises(ServiceError) as caught:
            question()
        code = "runtime_refused" if status < 500 else "runtime_unavailable"
        assert (caught.value.code, caught.value.params) == (code, {"runtime": "docker", "why": "not for you"})
    seen = runtime.observe(server_id="k3v9x2m7q4ab", directory=tmp_path, address=("127.0.0.1", 1))
    assert seen.state is BoxState.SILENT
    assert "not for you" in str(seen.detail)


def test_an_images_name_that_the_daemon_refuses_is_said_in_its_word(daemon: Daemon, engine: Engine):
    daemon.refuse(Refusal("GET", "/images/", 400, "invalid reference format: repository name must be lowercase"))
    for question in (engine.image_id, engine.images):
        with pytest.raises(ServiceError, match="must be lowercase") as caught:
            question("Aihub-Box:3.15.0")
        assert caught.value.code == "runtime_refused", "nobody waits for it"


def test_the_networks_are_asked_for_once_by_those_who_need_them_at_once(daemon: Daemon, engine: Engine):
    """A second create is refused by its name, or by its addresses where both were under way, and then the first is not listed yet."""
    daemon.together, daemon.listings_together = threading.Barrier(10), 10
    assert at_once(lambda: engine.ensure_networks(NETWORKS) or 0, 10) == [0] * 10
    assert daemon.creates == [GATE, MLFLOW]


def test_networks_that_another_process_makes_at_the_same_moment_are_taken(daemon: Daemon, engine: Engine):
    daemon.together, daemon.listings_together = threading.Barrier(2), 4
    another = Engine(address=engine.address, install="x", timeout=1)
    engines = [engine, another]
    assert at_once(lambda: engines.pop().ensure_networks(NETWORKS) or 0, 2) == [0, 0]
    another.close()
    assert daemon.networks.keys() == NETWORKS.keys()
    assert daemon.creates.count(GATE) == 2


@pytest.mark.parametrize("status", [403, 404])
def test_a_network_that_the_daemon_does_not_make_is_said_in_its_word(daemon: Daemon, engine: Engine, status: int):
    daemon.refuse(Refusal("POST", "/networks/create", status, "Pool overlaps with other one on this address space"))
    with pytest.raises(ServiceError, match="Pool overlaps") as caught:
        engine.ensure_networks(NETWORKS)
    assert caught.value.code == "network_unusable"


def test_a_container_that_the_daemon_cannot_stop_is_said_in_the_daemons_word(runtime: ContainerRuntime, tmp_path: Path):
    with pytest.raises(ServiceError) as caught:
        runtime.stop(server_id="k3v9x2m7q4ab", directory=tmp_path, timeout=1)
    assert (caught.value.code, caught.value.params) == ("box_failed_to_stop", {"why": UNSTOPPABLE})
