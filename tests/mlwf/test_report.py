"""How a failure is shown."""

import pytest
from mlwf.errors import MlwfError
from mlwf.report import show_failure


@pytest.mark.parametrize("stacktrace", [False, True])
def test_what_a_model_said_does_not_steer_the_terminal(capsys: pytest.CaptureFixture[str], stacktrace: bool) -> None:
    assert show_failure(MlwfError("What", "said \x1b]0;title\x07 and \x1b[2J\x9b1m and\r\x08", "Cure."), stacktrace=stacktrace) == 1
    told = capsys.readouterr().err
    assert "said ]0;title and [2J1m and" in told
    assert not [each for each in told if each < " " and each != "\n"]
    assert "\x9b" not in told
