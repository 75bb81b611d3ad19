"""Why a tracking server lets nobody in, in the words of the export and of the doctor: each with its own cure."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlwf.cli.export_model import TerminalReporter
from mlwf.doctor.findings import Finding, look
from mlwf.doctor.server_checks import Server
from mlwf.errors import MlwfError
from mlwf.export.run import Wanted, export
from mlwf.report import stderr

from tests.support.box import NOTICED, USER, Box, environment, make_box, until
from tests.support.tokens import tokens_document

pytestmark = pytest.mark.box


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    """A box with one token, which is over. MLflow is never asked."""
    made = make_box(environment())
    made.replace("tokens.json", tokens_document(("t1", "too-old", "alice", time.time() - 60)))
    made.start()
    yield made
    made.remove()


def refusal(box: Box, folder: Path, **login: str) -> MlwfError:
    with pytest.raises(MlwfError) as told:
        export(Wanted(f"{box.url}/", "m", "1", None, folder), {"PATH": "/usr/bin:/bin", **login}, TerminalReporter(stderr()))
    return told.value


def diagnosis(box: Box, **login: str) -> Finding:
    checks = [check for check in Server(box.url, {"PATH": "/usr/bin:/bin", **login}, lambda: "").checks() if check.name == "login"]
    (found,) = look(checks, seconds=30)
    return found


def test_each_reason_has_its_own_cure(box: Box, tmp_path: Path) -> None:
    wrong = refusal(box, tmp_path, MLFLOW_TRACKING_USERNAME=USER, MLFLOW_TRACKING_PASSWORD="wrong")
    assert (wrong.why, "MLFLOW_TRACKING_PASSWORD" in wrong.cure) == ("the user name or the password is missing or wrong", True)
    old = refusal(box, tmp_path, MLFLOW_TRACKING_TOKEN="too-old")
    assert (old.why, old.cure) == ("the token in MLFLOW_TRACKING_TOKEN has expired", "Make a new one with: mlwf token create GROUP/ENV.")
    assert diagnosis(box, MLFLOW_TRACKING_TOKEN="too-old").cure == old.cure
    assert "mlwf server env" in diagnosis(box, MLFLOW_TRACKING_USERNAME=USER, MLFLOW_TRACKING_PASSWORD="wrong").cure
    box.replace("users.json", json.dumps({"users": []}))
    until(lambda: "lets nobody in" in refusal(box, tmp_path).why, seconds=NOTICED, what="the users gone")
    assert "Auth Info Registration" in refusal(box, tmp_path, MLFLOW_TRACKING_TOKEN="too-old").cure
    assert "Auth Info Registration" in diagnosis(box, MLFLOW_TRACKING_USERNAME=USER, MLFLOW_TRACKING_PASSWORD="wrong").cure
    assert list(tmp_path.glob("MLWF*")) == []
