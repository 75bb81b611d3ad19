"""What is committed of the samples: no outputs, no secrets, settings that refuse what is unsafe."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.box import ROOT

SAMPLES = ROOT / "samples"
NAMES = ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_S3_ENDPOINT_URL")


@pytest.mark.parametrize("notebook", sorted(SAMPLES.rglob("*.ipynb")), ids=lambda path: path.name)
def test_notebooks_are_committed_without_outputs(notebook: Path) -> None:
    cells = json.loads(notebook.read_text("utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code
    assert not [cell["id"] for cell in code if cell["outputs"] or cell["execution_count"] is not None]


def settings(folder: Path, **environ: str) -> "subprocess.CompletedProcess[str]":
    """The four values as the notebook sees them, or the settings' refusal."""
    code = f"import settings; print([getattr(settings, name) for name in {NAMES!r}]); settings.apply()"
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONDONTWRITEBYTECODE": "1", **environ}
    argv = [sys.executable, "-c", code]
    return subprocess.run(argv, cwd=SAMPLES / "llm_finetune", env=env, capture_output=True, text=True, check=False)


def private_file(folder: Path, mode: int) -> None:
    file = folder / ".config" / "mlwf" / "tracking.env"
    file.parent.mkdir(parents=True)
    file.write_text(
        "export MLFLOW_TRACKING_URI=http://file:1/mlflow/\nMLFLOW_TRACKING_USERNAME='a b'  # who\nMLFLOW_TRACKING_PASSWORD='p w#'\n"
    )
    file.chmod(mode)


def test_nothing_is_committed_and_nothing_set_is_said(tmp_path: Path) -> None:
    done = settings(tmp_path)
    assert done.stdout.strip() == "['', '', '', '']"
    assert done.returncode == 1
    assert "MLFLOW_TRACKING_URI is not set" in done.stderr


def test_the_environment_goes_before_the_private_file(tmp_path: Path) -> None:
    private_file(tmp_path, 0o600)
    done = settings(tmp_path, MLFLOW_TRACKING_URI="http://environment:1/mlflow/")
    assert done.stdout.strip() == "['http://environment:1/mlflow/', 'a b', 'p w#', '']"
    assert done.returncode == 0, done.stderr


def test_a_private_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    private_file(tmp_path, 0o640)
    done = settings(tmp_path)
    assert done.returncode == 1
    assert "chmod 600" in done.stderr
    assert "p w#" not in done.stderr + done.stdout
