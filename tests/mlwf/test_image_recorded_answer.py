"""An answer recorded with plain MLflow, as the how-to tells, goes with the model into its package and is what the image has to answer."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.mlwf.models import answer_of
from tests.mlwf.tracking import PlainServer
from tests.support.apptainer import ROOT, Ground
from tests.support.box import environment

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(600)]
PAGE = ROOT / "docs" / "howto" / "create-image.md"
# What a user has when the page begins.
BEFORE = """
import mlflow
import pandas
from sklearn.linear_model import LinearRegression

example = pandas.DataFrame({"a": [1.0, 2.0, 3.0], "b": [0.0, 1.0, 0.0]})
model = LinearRegression().fit(example, [1.0, 2.0, 3.5])
"""
EXPORT = "import sys; from mlwf.cli.export_model import main; sys.argv[0] = 'mlwf_export_model'; main()"


def of_the_page() -> str:
    (found,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    return str(found)


def test_an_answer_that_was_recorded_as_the_page_tells(ground: Ground, plain_server: PlainServer, tmp_path: Path) -> None:
    variables = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "MLFLOW_TRACKING_URI": plain_server.url}
    logging = [environment() / "bin" / "python", "-c", BEFORE + of_the_page()]
    logged = subprocess.run(logging, env=variables, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert logged.returncode == 0, logged.stderr
    recorded = json.loads((tmp_path / "expected_output.json").read_text())
    assert recorded["predictions"] == pytest.approx([1.0, 2.0, 3.5])

    exported = ground.run(
        [ground.python, "-c", EXPORT, "--model-registry-url", plain_server.url, "--model-name", "wine", "--model-version", "1"]
    )
    assert exported.returncode == 0, exported.stderr
    package = ground.home / exported.stdout.strip() / "model.tar.gz"
    given = ["--model-pkg-url", package, "--base-container-url", f"docker-archive:{ground.base}", "--allow-python-minor", "--json"]
    made = ground.run(ground.create(*given), seconds=500, UV_PYTHON_DOWNLOADS="never")
    assert made.returncode == 0, made.stderr
    proof = answer_of(made.stdout)["proof"]
    assert isinstance(proof, dict)
    assert (proof["state"], proof["compared"]) == ("answered", True)
    assert json.loads(proof["text"])["predictions"] == pytest.approx(recorded["predictions"])
