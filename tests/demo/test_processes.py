"""Processes are known by number and start time, end with their group, and a stranger with the same number is left alone."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.processes import Process, read, start, write

ENVIRONMENT = {"PATH": "/usr/bin:/bin"}


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Process]:
    process = start(["sleep", "300"], environment=ENVIRONMENT, directory=tmp_path, log=tmp_path / "log")
    yield process
    process.stop()


def test_a_noted_process_is_found_again_and_stopped(sleeper: Process, tmp_path: Path) -> None:
    write(sleeper, tmp_path / "part.json")
    found = read(tmp_path / "part.json")
    assert found is not None
    assert found.is_running()
    found.stop()
    assert not found.is_running()
    assert not Path(f"/proc/{sleeper.pid}").exists()
    found.stop()  # gone already is fine


def test_a_stranger_with_the_number_is_left_alone(sleeper: Process) -> None:
    mistaken = Process(sleeper.pid, "another-boot:1")
    assert not mistaken.is_running()
    mistaken.stop()
    assert sleeper.is_running()


def test_it_lives_in_its_own_session_with_a_private_log_and_no_inherited_environment(sleeper: Process, tmp_path: Path) -> None:
    assert os.getsid(sleeper.pid) == sleeper.pid
    assert (tmp_path / "log").stat().st_mode & 0o077 == 0
    assert _environment(sleeper) == [b"PATH=/usr/bin:/bin"]


def _environment(process: Process) -> list[bytes]:
    """What it was given; for a moment after its start the kernel does not know yet."""
    deadline = time.monotonic() + 10
    while not (found := Path(f"/proc/{process.pid}/environ").read_bytes()):
        assert time.monotonic() < deadline, "no environment at all"
    return found.split(b"\0")[:-1]


def test_one_that_will_not_end_is_killed_with_its_children(tmp_path: Path) -> None:
    script = "trap '' TERM; sleep 300 & echo $! > child; echo ready > state; while :; do wait; done"
    process = start(["bash", "-c", script], environment=ENVIRONMENT, directory=tmp_path, log=tmp_path / "log")
    subprocess.run(["timeout", "10", "bash", "-c", "until [ -e state ]; do sleep 0.05; done"], cwd=tmp_path, check=True)
    child = int((tmp_path / "child").read_text())
    process.stop(seconds=0.3)
    assert not process.is_running()
    # The kernel may still be taking the orphan away.
    subprocess.run(
        ["timeout", "10", "bash", "-c", f"while grep -qs '[(]sleep[)] [^Z]' /proc/{child}/stat; do sleep 0.05; done"], check=True
    )


def test_nothing_noted_is_none(tmp_path: Path) -> None:
    assert read(tmp_path / "absent.json") is None
