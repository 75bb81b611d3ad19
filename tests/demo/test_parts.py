"""One part: started once, found again, started anew when it ended, and its last words told when it cannot start."""

import errno
import os
import signal
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from demo.errors import DemoError
from demo.parts import Part
from demo.processes import Process, start

SCRIPT = "echo $$ >> started; touch ready; exec sleep 300"


@pytest.fixture
def part(tmp_path: Path) -> Iterator[Part]:
    made = _part(tmp_path, SCRIPT)
    yield made
    made.stop()


def _part(folder: Path, script: str) -> Part:
    def ready() -> str | None:
        return None if (folder / "ready").exists() else "no file yet"

    environment = {"PATH": os.defpath}
    return Part("thing", "nowhere", ["sh", "-c", script], environment, folder, folder / "log", folder / "thing.json", ready)


def test_it_is_started_once(part: Part, tmp_path: Path) -> None:
    assert part.ensure_started()
    part.wait_ready()
    assert not part.ensure_started()
    assert len((tmp_path / "started").read_text().split()) == 1


def test_it_is_started_again_when_it_was_killed(part: Part, tmp_path: Path) -> None:
    part.ensure_started()
    part.wait_ready()
    process = part.running()
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    os.waitpid(process.pid, 0)
    assert part.running() is None
    (tmp_path / "ready").unlink()
    assert part.ensure_started()
    part.wait_ready()
    assert len((tmp_path / "started").read_text().split()) == 2


def test_stopping_twice_is_fine_and_leaves_no_note(part: Part) -> None:
    part.ensure_started()
    part.stop()
    part.stop()
    assert part.running() is None
    assert not part.process_file.exists()


def test_its_last_words_are_told_when_it_cannot_start(tmp_path: Path) -> None:
    part = _part(tmp_path, "echo 'the port is taken' >&2; exit 3")
    part.ensure_started()
    with pytest.raises(DemoError, match=r"the thing ended while starting.*log:\nthe port is taken"):
        part.wait_ready()


def test_a_stranger_on_its_port_is_named(part: Part) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        with pytest.raises(DemoError, match=f"another program has port {port} of the thing: stop that program"):
            replace(part, ports=(port,)).ensure_started()
    assert replace(part, ports=(port,)).ensure_started()


def test_one_that_cannot_be_noted_is_ended(part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Process] = []

    def full(process: Process, _file: Path) -> None:
        started.append(process)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("demo.parts.write", full)
    with pytest.raises(OSError, match="No space left"):
        part.ensure_started()
    running = [process for process in started if process.is_running()]
    for process in running:
        process.stop()
    assert running == []
    assert len(started) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_at_its_start_comes_once_it_is_noted(part: Part, monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    started: list[Process] = []

    def interrupted(argv: list[str], *, environment: dict[str, str], directory: Path, log: Path) -> Process:
        started.append(start(argv, environment=environment, directory=directory, log=log))
        signal.raise_signal(number)
        return started[0]

    monkeypatch.setattr("demo.parts.start", interrupted)
    before = signal.signal(number, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            part.ensure_started()
    finally:
        signal.signal(number, before)
        found = part.running()
        started[0].stop()
    assert found == started[0]
