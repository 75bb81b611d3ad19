"""Programs that end early: by SIGTERM, SIGHUP, or with their terminal."""

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.box import until

# What mlwf_create_image does around its work, which waits here.
PROGRAM = """
import sys, threading
from pathlib import Path
from mlwf.ending import Terminated, end, raise_on_terminate
from mlwf.image_cli import TerminalReporter
from mlwf.report import stderr

raise_on_terminate()
folder, console = Path(sys.argv[1]), stderr()
try:
    with TerminalReporter(console, as_json=False) as reporter:
        try:
            reporter.begins("base", lambda: 5, 10)
            (folder / "begun").touch()
            while True:
                threading.Event().wait(0.1)
        finally:
            (folder / "tidied").touch()
except Terminated:
    end(143, "Terminated", console)
"""


def started(folder: Path, *before: str, terminal: int | None = None) -> "subprocess.Popen[bytes]":
    # Whoever runs the tests in the background may have signals ignored, and what is started would inherit that.
    argv = ["env", "--default-signal=HUP,INT,TERM", *before, sys.executable, "-c", PROGRAM, str(folder)]
    if terminal is None:
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    # setsid makes it the terminal's own.
    return subprocess.Popen(["setsid", "--ctty", "--wait", *argv], stdin=terminal, stdout=terminal, stderr=terminal)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_tidily(tmp_path: Path, number: signal.Signals) -> None:
    process = started(tmp_path)
    until((tmp_path / "begun").exists, what="the work")
    process.send_signal(number)
    assert process.wait(30) == 143
    assert (tmp_path / "tidied").exists()


def test_a_lost_terminal_ends_it_tidily(tmp_path: Path) -> None:
    ours, terminal = pty.openpty()
    process = started(tmp_path, terminal=terminal)
    os.close(terminal)
    until((tmp_path / "begun").exists, what="the work")
    os.close(ours)
    assert process.wait(30) == 143
    assert (tmp_path / "tidied").exists()


def test_under_nohup_it_goes_on(tmp_path: Path) -> None:
    process = started(tmp_path, "nohup")
    until((tmp_path / "begun").exists, what="the work")
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) != 143
    assert (tmp_path / "tidied").exists()
