"""How a failure is shown."""

import json
from pathlib import Path

import pytest
from mlwf.errors import MlwfError, WrongUseError
from mlwf.image.tool import Bind
from mlwf.report import show_failure


@pytest.mark.parametrize("stacktrace", [False, True])
def test_what_a_model_said_does_not_steer_the_terminal(capsys: pytest.CaptureFixture[str], stacktrace: bool) -> None:
    assert show_failure(MlwfError("What", "said \x1b]0;title\x07 and \x1b[2J\x9b1m and\r\x08", "Cure."), stacktrace=stacktrace) == 1
    told = capsys.readouterr().err
    assert "said ]0;title and [2J1m and" in told
    assert not [each for each in told if each < " " and each != "\n"]
    assert "\x9b" not in told


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
