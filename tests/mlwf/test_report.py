"""How a failure is shown, and how a build goes."""

import io
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from mlwf.cli import output
from mlwf.cli.image_progress import TerminalReporter
from mlwf.errors import MlwfError, WrongUseError
from mlwf.image.tool import Bind
from mlwf.report import show_failure, stderr
from rich.console import Console

from tests.support.box import until


@pytest.mark.parametrize("stacktrace", [False, True])
def test_what_a_model_said_does_not_steer_the_terminal(capsys: pytest.CaptureFixture[str], stacktrace: bool) -> None:
    assert show_failure(MlwfError("What", "said \x1b]0;title\x07 and \x1b[2J\x9b1m and\r\x08", "Cure."), stacktrace=stacktrace) == 1
    told = capsys.readouterr().err
    assert "said ]0;title and [2J1m and" in told
    assert not [each for each in told if each < " " and each != "\n"]
    assert "\x9b" not in told


def test_a_name_with_colons_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    show_failure(MlwfError("exp:a:100:1/[b]x[/b] is none"), stacktrace=False)
    stderr().print("exp:a:100:1", markup=False)
    output.console().print("exp:a:100:1", markup=False)
    told = capsys.readouterr()
    assert told.err == "Error: exp:a:100:1/[b]x[/b] is none.\nexp:a:100:1\n"
    assert told.out == "exp:a:100:1\n"


@pytest.mark.parametrize(
    ("charset", "shown"), [("utf-8", b"\x83\xe3\x83\xaf\xe2\x9c\x93"), ("latin-1", b"\x83?+"), ("euc_jp", b"\x83\xa5\xef+")]
)
def test_a_path_that_is_no_text_is_printed_as_it_is(charset: str, shown: bytes) -> None:
    """As folders are named that came out of a Windows zip: what is printed must be the folder's name."""
    script = "from mlwf.streams import print_anything; print_anything(); print('\\udc83ワ✓', end='')"
    environ = {"PYTHONIOENCODING": charset, "PYTHONUTF8": "1"}
    assert subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True, check=True).stdout == shown


def test_a_failure_for_machines_is_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert show_failure(WrongUseError("It cannot", "so it is", "Do that."), stacktrace=False, as_json=True) == 2
    assert json.loads(capsys.readouterr().err) == {"state": "failed", "what": "It cannot", "why": "so it is", "cure": "Do that."}
    assert show_failure(KeyError("x"), stacktrace=False, as_json=True) == 1
    assert "KeyError" in json.loads(capsys.readouterr().err)["what"]


@pytest.mark.parametrize("name", ["a,b", "a:b"])
def test_a_folder_that_the_tool_would_read_as_two_is_refused(name: str, tmp_path: Path) -> None:
    assert Bind(tmp_path / "ab", "/inside").text() == f"{tmp_path}/ab:/inside:ro"
    with pytest.raises(MlwfError, match="comma or a colon"):
        Bind(tmp_path / name, "/inside").text()


def test_a_terminal_shows_the_bytes_of_a_step_and_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")  # whatever the tests run in
    screen, count = io.StringIO(), itertools.count(1)
    console = Console(file=screen, force_terminal=True, color_system=None, width=120)
    with TerminalReporter(console, as_json=False) as reporter:
        reporter.begins("pack", lambda: next(count) * 1_000_000, 900_000_000)
        # Packing the image ━━━━ 5.0/900.0 MB 0:03:44
        shown = re.compile(r"Packing the image [━╸╺ ]+ \d+\.0/900\.0 MB \d:\d\d:\d\d")
        until(lambda: shown.search(screen.getvalue()), what="bytes and time left")


def test_a_step_without_bytes_shows_how_long_it_has_been_running(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    screen = io.StringIO()
    with TerminalReporter(Console(file=screen, force_terminal=True, color_system=None, width=120), as_json=False) as reporter:
        reporter.begins("lock", None, None)
        until(lambda: re.search(r"Resolving the packages 0:00:\d\d", screen.getvalue()), what="the time so far")


def test_a_total_that_becomes_known_gives_the_time_left_and_one_that_was_too_low_the_time_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    screen, count = io.StringIO(), itertools.count(1)
    with TerminalReporter(Console(file=screen, force_terminal=True, color_system=None, width=120), as_json=False) as reporter:
        reporter.begins("environment", lambda: next(count) * 1_000_000, None)
        until(lambda: re.search(r"\d+\.0/\? MB 0:00:0\d", screen.getvalue()), what="bytes and the time so far")
        reporter.expects("base-pack", 800_000_000)  # another step's
        reporter.expects("environment", 900_000_000)
        until(lambda: re.search(r"\d+\.0/900\.0 MB \d:\d\d:\d\d", screen.getvalue()), what="bytes and the time left")
        assert "/800.0" not in screen.getvalue()
        screen.seek(0)
        screen.truncate()
        reporter.expects("environment", 1)
        until(lambda: re.search(r"\d+\.0/\? MB 0:00:\d\d", screen.getvalue()), what="no total any more")


def test_machines_are_told_the_bytes_so_far(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlwf.cli.image_progress.TELL_SECONDS", 0.01)
    lines: list[str] = []

    def told() -> list[dict[str, object]]:
        lines.extend(capsys.readouterr().err.splitlines())
        return [json.loads(line) for line in lines]

    size = 0
    with TerminalReporter(Console(), as_json=True) as reporter:
        reporter.begins("pack", lambda: size, 9)
        size = 4
        until(lambda: told()[-1].get("bytes") == 4, what="the first bytes")
        size = 7
        until(lambda: told()[-1].get("bytes") == 7, what="more of them")
        size = 9
        until(lambda: told()[-1].get("bytes") == 9, what="all of them")
        reporter.expects("pack", 20)
        size = 12
        until(lambda: told()[-1].get("bytes") == 12, what="more than was expected first")
        reporter.ends("pack", 1.5)
    grows = {"step": "pack", "state": "grows", "total": 9}
    assert told() == [
        {"step": "pack", "state": "begins", "total": 9},
        *({**grows, "bytes": each} for each in (4, 7, 9)),
        {**grows, "bytes": 12, "total": 20},
        {"step": "pack", "state": "ends", "seconds": 1.5},
    ]
