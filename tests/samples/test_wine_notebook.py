"""The wine sample's notebook, run on a real box."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.mlwf.tracking import Tracking
from tests.support.box import ROOT
from tests.support.sample_env import sample_environment

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(1500)]


def test_three_runs_and_the_best_is_loaded(sleepy: Tracking, tmp_path: Path) -> None:
    """Without the UCI data (no such port) it says so and takes scikit-learn's."""
    folder = Path(shutil.copytree(ROOT / "samples" / "wine", tmp_path / "wine", ignore=shutil.ignore_patterns("__pycache__")))
    python = sample_environment("llm_finetune") / "bin"  # has scikit-learn too, by way of mlflow
    environ = {"PATH": f"{python}:{os.environ['PATH']}", "HOME": str(tmp_path), **sleepy.login, "MLFLOW_TRACKING_URI": sleepy.url}
    environ |= {"https_proxy": "http://127.0.0.1:9", "no_proxy": "127.0.0.1"}
    command = [python / "jupyter-execute", "--timeout=300", "--output=done.ipynb", "ElasticNet.ipynb"]
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    said = (folder / "done.ipynb").read_text("utf-8")
    assert "using the wine data that comes with scikit-learn" in said
    found = sleepy.box.api("GET", "model-versions/search", params={"filter": "name='ElasticnetWineModel'"})["model_versions"]
    assert len(found) == 3
    assert "predicts [" in said
