"""The LLM sample's settings with a real mlflow, in front of a real box."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.mlwf.tracking import Tracking
from tests.samples.llm import SAMPLE
from tests.support.box import PASSWORD, USER, environment

pytestmark = pytest.mark.box

LAUNCHER = "sys.argv[0] = str(pathlib.Path(sys.argv[1]) / 'ipykernel_launcher.py')"
RECORDED = """
from mlflow.tracking.context import registry
print(registry.resolve_tags().get("mlflow.source.git.commit"))
"""
CORRECTED = """
import mlflow
file = pathlib.Path("~/.config/mlwf/tracking.env").expanduser()
settings.apply()
try:
    mlflow.set_experiment("corrected")
except mlflow.MlflowException as error:
    print(error)
file.write_text(file.read_text().replace("an old one", sys.argv[1]))
settings.apply()
print("experiment", mlflow.set_experiment("corrected").name)
"""


def python(folder: Path, code: str, argument: str | Path, **environ: str) -> str:
    """Code with the sample's copy in `folder`, by an environment that has mlflow; what it said."""
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "PYTHONDONTWRITEBYTECODE": "1",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        **environ,
    }
    argv = [environment() / "bin" / "python", "-c", f"import pathlib, sys, settings\n{code}", argument]
    done = subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def copy_of(folder: Path) -> Path:
    folder.mkdir()
    (folder / "settings.py").write_bytes((SAMPLE / "settings.py").read_bytes())
    return folder


def committed(folder: Path) -> str:
    """Makes it a git repository of one commit, which is answered."""
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", "-C", folder]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "--allow-empty", "-m", folder.name]):
        subprocess.run([*git, *words], check=True)
    return subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()


def test_the_commit_is_the_one_of_the_code_and_not_of_jupyter(tmp_path: Path) -> None:
    """Jupyter's program lies in a repository, too, as a venv inside a checkout does; where the code is in none, no commit is recorded."""
    code, jupyter = copy_of(tmp_path / "code"), tmp_path / "jupyter"
    jupyter.mkdir()
    other = committed(jupyter)
    (jupyter / "ipykernel_launcher.py").touch()
    address = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9/"}
    assert python(code, LAUNCHER + RECORDED, jupyter, **address).strip() == other, "what mlflow does by itself"
    assert python(code, f"{LAUNCHER}\nsettings.apply(){RECORDED}", jupyter, **address).strip() == "None"
    own = committed(code)
    assert python(code, f"{LAUNCHER}\nsettings.apply(){RECORDED}", jupyter, **address).strip() == own


def test_a_password_that_is_corrected_in_the_file_lets_the_same_kernel_in(sleepy: Tracking, tmp_path: Path) -> None:
    folder = copy_of(tmp_path / "code")
    file = folder / ".config" / "mlwf" / "tracking.env"
    file.parent.mkdir(parents=True)
    lines = {"URI": sleepy.url, "USERNAME": USER, "PASSWORD": "'an old one'"}
    file.write_text("".join(f"export MLFLOW_TRACKING_{name}={value}\n" for name, value in lines.items()))
    file.chmod(0o600)
    said = python(folder, CORRECTED, PASSWORD)
    assert "Unknown user, wrong password" in said
    assert said.splitlines()[-1] == "experiment corrected"
