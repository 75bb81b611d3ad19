"""Programs that end early: by SIGTERM, SIGHUP, a batch system's warning, or with their terminal."""

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from mlwf.cli import create_image
from mlwf.ending import Terminated

from tests.mlwf.image_parts import run_command
from tests.support.box import until

# What mlwf_create_image does around its work, which waits here.
PROGRAM = """
import sys, threading
from pathlib import Path
from mlwf.ending import Terminated, end, raise_on_terminate
from mlwf.cli.image_progress import TerminalReporter
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
except Terminated as ended:
    end(143, str(ended), console)
"""


def started(folder: Path, *before: str, terminal: int | None = None) -> "subprocess.Popen[bytes]":
    # Whoever runs the tests in the background may have signals ignored, and what is started would inherit that.
    argv = ["env", "--default-signal=HUP,INT,TERM,USR1,USR2,XCPU", *before, sys.executable, "-c", PROGRAM, str(folder)]
    if terminal is None:
        with (folder / "said").open("wb") as said:
            return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said)
    # setsid makes it the terminal's own.
    return subprocess.Popen(["setsid", "--ctty", "--wait", *argv], stdin=terminal, stdout=terminal, stderr=terminal)


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (signal.SIGTERM, "Terminated; nothing was kept."),
        (signal.SIGHUP, "Terminated; nothing was kept."),
        (signal.SIGUSR1, "Ended by SIGUSR1,"),  # Grid Engine's s_rt
        (signal.SIGUSR2, "Ended by SIGUSR2,"),  # its -notify
        (signal.SIGXCPU, "Ended by SIGXCPU,"),  # its s_cpu
    ],
)
def test_a_signal_ends_it_tidily_and_is_told(tmp_path: Path, number: signal.Signals, told: str) -> None:
    process = started(tmp_path)
    until((tmp_path / "begun").exists, what="the work")
    process.send_signal(number)
    assert process.wait(30) == 143
    assert (tmp_path / "tidied").exists()
    assert told in (tmp_path / "said").read_text()


def test_a_lost_terminal_ends_it_tidily(tmp_path: Path) -> None:
    ours, terminal = pty.openpty()
    process = started(tmp_path, terminal=terminal)
    os.close(terminal)
    until((tmp_path / "begun").exists, what="the work")
    os.close(ours)
    assert process.wait(30) == 143
    assert (tmp_path / "tidied").exists()


def test_a_warning_that_the_jobs_script_ignores_is_none(tmp_path: Path) -> None:
    process = started(tmp_path, "env", "--ignore-signal=USR2")
    until((tmp_path / "begun").exists, what="the work")
    process.send_signal(signal.SIGUSR2)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(30) == 143
    assert "SIGUSR1" in (tmp_path / "said").read_text()


def test_under_nohup_it_goes_on(tmp_path: Path) -> None:
    process = started(tmp_path, "nohup")
    until((tmp_path / "begun").exists, what="the work")
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) != 143
    assert (tmp_path / "tidied").exists()


LOST = """
import signal, sys, threading
from mlwf.ending import Held, Terminated, raise_on_terminate

class Gone:
    def __del__(self):
        signal.raise_signal(getattr(signal, sys.argv[1]))

def waits():
    Gone()
    threading.Event().wait(10)
    print("nobody told")

raise_on_terminate()
try:
    if sys.argv[2] == "held":
        with Held() as held:
            with held.lifted():
                waits()
    waits()
except (Terminated, KeyboardInterrupt) as ended:
    print(repr(ended))
"""


@pytest.mark.parametrize("where", ["held", "free"])
@pytest.mark.parametrize(("number", "ends"), [("SIGUSR1", "Terminated(<Signals.SIGUSR1: 10>)"), ("SIGINT", "KeyboardInterrupt()")])
def test_a_signal_in_a_destructor_ends_it_too(number: str, ends: str, where: str) -> None:
    """Python drops what is raised there, and what had come once was not heeded again: a job held its server until it was killed."""
    argv = ["env", "--default-signal=USR1,INT", sys.executable, "-c", LOST, number, where]
    said = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert said.stdout.replace("(10)", "(<Signals.SIGUSR1: 10>)") == f"{ends}\n"
    assert said.stderr == ""


@pytest.mark.parametrize(("raised", "status", "words"), [(KeyboardInterrupt(), 130, "Interrupted;"), (Terminated(), 143, "Terminated;")])
def test_how_it_was_ended_is_a_line_of_json_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: BaseException, status: int, words: str
) -> None:
    def ended(*_given: object) -> None:
        raise raised

    monkeypatch.setattr(create_image, "create", ended)
    monkeypatch.setattr(create_image, "raise_on_terminate", lambda: None)
    before = signal.getsignal(signal.SIGINT)
    try:
        done = run_command(monkeypatch, tmp_path, "--json", "--model-pkg-url", "m", "--base-container-url", "b")
    finally:
        signal.signal(signal.SIGINT, before)
    assert done[:2] == (status, "")
    told = json.loads(done[2])
    assert (told.keys(), told["state"]) == ({"state", "what", "why", "cure"}, "failed")
    assert told["what"].startswith(words)
