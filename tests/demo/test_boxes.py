"""Ending tracking servers by the lock that their guards hold; a number in a file that nobody holds is nobody's."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.boxes import stop_boxes

GUARD = """
import fcntl, os, signal, sys
lock = open(sys.argv[1], "a+")
fcntl.flock(lock, fcntl.LOCK_EX)
lock.truncate(0); lock.write(str(os.getpid())); lock.flush()
print("held", flush=True)
signal.pause()
"""


@pytest.fixture
def guard(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process that behaves as docs/reference/box.md says of the guard and its lock."""
    file = tmp_path / "abcdefghij12" / "run" / "guard.lock"
    file.parent.mkdir(parents=True)
    with subprocess.Popen([sys.executable, "-c", GUARD, str(file)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_guard_that_holds_its_lock_is_ended(guard: "subprocess.Popen[str]", tmp_path: Path) -> None:
    assert stop_boxes(tmp_path) == 1
    assert guard.wait(10) == -15


def test_a_number_without_the_lock_is_left_alone(guard: "subprocess.Popen[str]", tmp_path: Path) -> None:
    stale = tmp_path / "stale1234567" / "run" / "guard.lock"
    stale.parent.mkdir(parents=True)
    stale.write_text(str(os.getpid()))
    empty = tmp_path / "empty1234567" / "run" / "guard.lock"
    empty.parent.mkdir(parents=True)
    empty.write_text("")
    assert stop_boxes(tmp_path) == 1
    assert stop_boxes(tmp_path) == 0
