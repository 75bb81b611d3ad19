"""How the daemon is asked, against a program that stands for one: what a daemon that hangs does to those who ask."""

from __future__ import annotations

import json
import socketserver
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from backend.errors import ServiceError
from backend.runtimes.containers import ContainerRuntime, Site
from backend.runtimes.docker import Engine

ASKERS = 8
UNSTOPPABLE = "cannot stop container: abc: tried to kill container, but did not receive an exit event"
ROW = {
    "Id": "abc",
    "Names": ["/aihub-x-gate"],
    "Labels": {"org.aihub.server": "k3v9x2m7q4ab", "org.aihub.role": "gate"},
    "State": "running",
    "Status": "Up",
}


class Daemon(socketserver.ThreadingUnixStreamServer):
    """Says its version, and its containers unless it `hangs`."""

    daemon_threads = True

    def __init__(self, path: Path) -> None:
        self.hangs, self.listings = threading.Event(), 0
        self.rows, self.removed = [ROW], list[str]()
        self.api, self.about = "1.41", dict[str, object]()
        self.ended = threading.Event()
        super().__init__(str(path), Answer)


class Answer(BaseHTTPRequestHandler):
    server: Daemon
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        asked = self.path.split("/")[1]
        found: object = {"ApiVersion": self.server.api, "Config": {"Tty": False}}
        if asked not in {f"v{self.server.api}", "version"}:
            self._say(
                json.dumps({"message": f"client version {asked[1:]} is too old. Minimum supported API version is 1.44"}).encode(), 400
            )
            return
        if "/logs?" in self.path:
            self._say(json.dumps({"message": "can not get logs from container which is dead or marked for removal"}).encode(), 409)
            return
        if "/archive?" in self.path:
            self._say(json.dumps({"message": "container is dead or marked for removal"}).encode(), 500)
            return
        if self.path.endswith("/info"):
            found = self.server.about
        elif "/containers/json" in self.path:
            self.server.listings += 1
            if self.server.hangs.is_set():
                self.server.ended.wait(60)
            found = self.server.rows
        self._say(json.dumps(found).encode())

    def do_POST(self) -> None:
        if "/stop?" in self.path:
            self._say(json.dumps({"message": UNSTOPPABLE}).encode(), 500)

    def do_DELETE(self) -> None:
        self.server.removed.append(self.path.partition("?")[0].rpartition("/")[2])
        self._say(b"")

    def _say(self, body: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the library's own word)
        """Nothing on the test's output."""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with Daemon(tmp_path / "docker.sock") as running:
        threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
        yield running
        running.ended.set()
        running.shutdown()


@pytest.fixture
def engine(daemon: Daemon) -> Iterator[Engine]:
    engine = Engine(address=f"unix://{daemon.server_address!s}", install="x", timeout=1)
    yield engine
    engine.close()


def ask_at_once(engine: Engine) -> list[str | int]:
    """What each of those who ask at the same time is told: a failure's code, or how many containers there are."""
    together = threading.Barrier(ASKERS)

    def ask(_number: int) -> str | int:
        together.wait()
        try:
            return len(engine.containers())
        except ServiceError as error:
            return error.code

    with ThreadPoolExecutor(ASKERS) as pool:
        return list(pool.map(ask, range(ASKERS)))


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
    old, young = 1_700_000_000, int(time.time())
    once = {"Labels": {"org.aihub.once": "prepare"}}
    daemon.rows += [
        {"Id": "never-started", "State": "created", "Created": old, **once},
        {"Id": "has-ended", "State": "exited", "Created": old, **once},
        {"Id": "runs-for-long", "State": "running", "Created": old, **once},
        {"Id": "about-to-start", "State": "created", "Created": young, **once},
    ]
    assert [found.id for found in engine.containers()] == ["abc"]
    engine.remove_left()
    assert daemon.removed == ["never-started", "has-ended"]


def test_a_one_off_container_that_changes_a_database_ends_with_its_server(daemon: Daemon, engine: Engine, tmp_path: Path):
    """Whose service was killed; it would go on writing beside the next one. A copy that somebody takes meanwhile goes on."""
    migration = {"org.aihub.once": "migrate", "org.aihub.writes": "a"}
    daemon.rows = [
        {"Id": "migration", "State": "running", "Created": int(time.time()), "Labels": migration},
        {"Id": "of-another", "State": "running", "Created": int(time.time()), "Labels": {**migration, "org.aihub.writes": "b"}},
        {"Id": "copy", "State": "running", "Created": int(time.time()), "Labels": {"org.aihub.once": "copy"}},
    ]
    site = Site(install="x", image="aihub-box:{version}", listen_address="127.0.0.1", networks={})
    runtime = ContainerRuntime(engine=engine, site=site)
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


def test_a_container_that_is_being_removed_has_no_log(engine: Engine):
    assert engine.log("abc", 1) == ""
    assert engine.tail("abc", "/box/log/guard.log", 1) == []


def test_a_container_that_the_daemon_cannot_stop_is_said_in_the_daemons_word(engine: Engine, tmp_path: Path):
    site = Site(install="x", image="aihub-box:{version}", listen_address="127.0.0.1", networks={})
    with pytest.raises(ServiceError) as caught:
        ContainerRuntime(engine=engine, site=site).stop(server_id="k3v9x2m7q4ab", directory=tmp_path, timeout=1)
    assert (caught.value.code, caught.value.params) == ("box_failed_to_stop", {"why": UNSTOPPABLE})
