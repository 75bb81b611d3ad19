"""`aihub serve`: one per state, its parts started again, one signal ends all, and no request refused meanwhile."""

import contextlib
import errno
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlwf.wire.transport import open_session
from prometheus_client.parser import text_string_to_metric_families

from backend.listeners import CannotListenError, listeners
from backend.reconcile import renewable
from backend.serving import supervisor
from backend.settings import Settings
from demo.ports import free_ports
from tests.service.edge.live import Live, live_service, until


@pytest.fixture
def live() -> Iterator[Live]:
    with live_service() as service:
        yield service


def test_it_says_what_it_needs(live: Live) -> None:
    live.configure(allow_unisolated=False)
    refused = live.aihub("serve", check=False)
    assert refused.returncode == 1
    assert "one group could read another's keys; choose another runtime, or set allow_unisolated: true" in refused.stderr
    live.configure(allow_unisolated=True, state_dir=str(live.home / "other"))
    assert "run `aihub init` first" in live.aihub("serve", check=False).stderr
    live.configure(state_dir=str(live.home / "state"))
    keys = live.state / "keys.json"
    keys.rename(live.state / "keys.away")
    assert "there is no key file" in live.aihub("serve", check=False).stderr
    (live.state / "keys.away").rename(keys)
    (live.state / "registry.db").unlink()
    assert "this version needs" in live.aihub("serve", check=False).stderr


def test_a_second_one_is_refused_and_one_signal_ends_all(live: Live) -> None:
    live.start()
    second = live.aihub("serve", check=False)
    assert second.returncode == 1
    assert f"another aihub serve (process {live.process.pid if live.process else 0}) runs on {live.state}" in second.stderr
    assert "Traceback" not in second.stderr
    parts = live.parts()
    assert len(parts) == 5  # supervisor, gunicorn and its two workers, reconciler
    assert stat.S_IMODE(live.socket.stat().st_mode) == 0o666
    assert live.stop() == 0
    assert [part.pid for part in parts if part.is_running()] == []
    assert not live.socket.exists()
    assert "Traceback" not in live.log


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_either_signal(live: Live, number: int) -> None:
    live.start()
    assert live.stop(number) == 0


def test_killed_and_started_again(live: Live) -> None:
    """The supervisor's death is the parts' death; what it leaves (a socket) is in nobody's way."""
    live.start()
    parts = live.parts()
    live.stop(signal.SIGKILL)
    until(lambda: not any(part.is_running() for part in parts), what="the end of the parts")
    assert live.socket.is_socket()
    live.start()
    assert live.ask("GET", "/me")[0] == 200


def test_a_part_that_dies_is_started_again(live: Live) -> None:
    live.start()
    reconciler = live.part("reconciler")
    reconciler.kill()
    until(lambda: live.other_part(reconciler, "reconciler"), what="a new reconciler")
    until(live.is_well)
    api = live.part("api")
    answers: list[int] = []
    for part in (api, *api.children()):
        with contextlib.suppress(psutil.NoSuchProcess):  # gone with the first
            part.kill()
    asking = threading.Thread(target=lambda: answers.append(live.ask("GET", "/me")[0]))
    asking.start()
    asking.join(30)
    assert answers == [200]  # it waited in the socket's queue
    assert "it is started again in" in live.log


def test_a_process_that_the_machine_refuses_is_asked_for_again(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The supervisor holds the listening sockets: its own end would refuse every request."""
    part = supervisor._Part(name="reconciler", argv=[sys.executable, "-c", ""], listener=None)

    def refuse(*_arguments: Any, **_options: Any) -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", refuse)
        part.look()
        part.look()
    assert part.process is None
    assert caplog.text.count("Resource temporarily unavailable") == 1, "it waits before it tries again"
    part.start_at = 0.0
    part.look()
    assert part.process is not None
    assert part.process.wait(60) == 0


def test_an_api_that_hangs_is_none_that_answers(live: Live) -> None:
    """It can be connected to all the while: the supervisor holds the socket."""
    live.start()

    def answers() -> bool:
        session, base = open_session(f"unix://{live.socket}")
        with session:
            return renewable.answers(session, base)

    assert answers()
    api = live.part("api")
    api.suspend()
    until(lambda: api.status() == psutil.STATUS_STOPPED, what="a parent that starts no other worker")
    for part in api.children():
        part.suspend()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(renewable, "SECONDS", 0.5)
        assert not answers()
    for part in (*api.children(), api):
        part.resume()
    assert answers()
    assert " /api/v1/health 200 " not in live.log, "what is asked every few seconds fills no log"


def test_what_lies_in_the_sockets_place(live: Live) -> None:
    live.socket.write_text("something else")
    refused = live.aihub("serve", check=False)
    assert refused.returncode == 1
    assert f"{live.socket} exists and is not a socket; remove it" in refused.stderr
    assert live.socket.read_text() == "something else"


def test_a_folder_too_deep_for_a_sockets_name(live: Live) -> None:
    deep = live.home / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True, mode=0o755)
    live.configure(socket=str(deep / "service.sock"))
    live.process = None
    with live.client() as client:
        live.is_well = lambda: (deep / "service.sock").exists() and client.health().status == "ok"  # type: ignore[method-assign]
        live.start()
        assert client.me().uid == os.geteuid()


def test_a_group_of_its_own(live: Live) -> None:
    live.configure(socket_group="no-such-group-here")
    assert "there is no group no-such-group-here" in live.aihub("serve", check=False).stderr
    if os.geteuid() == 0:
        live.configure(socket_group="daemon")
        live.start()
        assert stat.S_IMODE(live.socket.stat().st_mode) == 0o660
        assert live.socket.group() == "daemon"


def test_a_socket_that_cannot_be_made_leaves_nothing_behind(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path, socket_group="no-such-group-here")
    with pytest.raises(CannotListenError, match="there is no group"), listeners(settings):
        pass
    assert list(settings.socket.parent.iterdir()) == []


def test_logs_are_single_lines(live: Live) -> None:
    live.start()
    live.ask("POST", "/servers", {"group": "x"})
    live.stop()
    for line in live.log.splitlines():
        assert line[:4].isdigit(), line
        assert line.split()[2] in {"INFO", "WARNING", "ERROR"}, line


def _last_pass(live: Live) -> float:
    """When the reconciler looked last, as whoever collects metrics reads it."""
    with urllib.request.urlopen(f"http://{live.settings['metrics_listen']}/metrics", timeout=20) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    name = "aihub_reconciler_last_pass_timestamp_seconds"
    return next(sample.value for family in families for sample in family.samples if sample.name == name)


def test_the_parts_apart_and_what_systemd_is_told(live: Live) -> None:
    live.configure(metrics_listen=f"127.0.0.1:{free_ports(1)[0]}")
    told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    told.settimeout(40)
    told.bind(str(live.home / "notify"))
    with told:
        live.process = live.run("--part", "web", NOTIFY_SOCKET=str(live.home / "notify"))
        assert told.recv(64) == b"READY=1"
        assert live.ask("GET", "/me")[0] == 200
        assert live.ask("GET", "/health")[1]["status"] == "degraded"
        assert _last_pass(live) == 0
        second = live.aihub("serve", "--part", "web", check=False)
        assert "another aihub serve" in second.stderr
        whole = live.aihub("serve", check=False)
        assert "another aihub serve" in whole.stderr
        assert [part.cmdline()[4] for part in live.parts()[1:] if part.ppid() == live.process.pid] == ["api", "metrics"]
        other = live.run("--part", "reconciler")
        try:
            until(live.is_well)
            assert _last_pass(live) > 0
        finally:
            other.terminate()
            assert other.wait(40) == 0
        assert live.stop() == 0
        assert told.recv(64) == b"STOPPING=1"
