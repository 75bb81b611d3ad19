"""What is committed of the samples: no outputs, no secrets, settings that refuse what is unsafe."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.box import ROOT

SAMPLES = ROOT / "samples"
WORDS = ("TRACKING_URI", "TRACKING_USERNAME", "TRACKING_PASSWORD", "TRACKING_TOKEN", "S3_ENDPOINT_URL", "REGISTRY_URI")
NAMES = [f"MLFLOW_{word}" for word in WORDS]


@pytest.mark.parametrize("notebook", sorted(SAMPLES.rglob("*.ipynb")), ids=lambda path: path.name)
def test_notebooks_are_committed_without_outputs(notebook: Path) -> None:
    cells = json.loads(notebook.read_text("utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code
    assert not [cell["id"] for cell in code if cell["outputs"] or cell["execution_count"] is not None]


def python(folder: Path, code: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    """Code beside the sample's settings; its home is the folder."""
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONDONTWRITEBYTECODE": "1", **environ}
    argv = [sys.executable, "-c", f"import json, os, pathlib, settings\n{code}"]
    return subprocess.run(argv, cwd=SAMPLES / "llm_finetune", env=env, capture_output=True, text=True, check=False)


TELL = f"print(json.dumps({{name: os.environ.get(name) for name in {NAMES!r} if name in os.environ}}))"


def applied(folder: Path, **environ: str) -> dict[str, str]:
    """What mlflow finds in its environment after `settings.apply()`, by the ends of the names."""
    done = python(folder, f"settings.apply()\n{TELL}", **environ)
    assert done.returncode == 0, done.stderr
    return told(done.stdout)


def told(said: str) -> dict[str, str]:
    found: dict[str, str] = json.loads(said.splitlines()[-1])
    return {name.removeprefix("MLFLOW_").removeprefix("TRACKING_"): value for name, value in found.items()}


def private_file(folder: Path, content: str = "", *, mode: int = 0o600) -> Path:
    file = folder / ".config" / "mlwf" / "tracking.env"
    file.parent.mkdir(parents=True)
    login = "MLFLOW_TRACKING_USERNAME='a b'  # who\nMLFLOW_TRACKING_PASSWORD='p w#'\n"
    file.write_text(content or f"export MLFLOW_TRACKING_URI=http://file:1/mlflow/\n{login}")
    file.chmod(mode)
    return file


OF_THE_FILE = {"URI": "http://file:1/mlflow/", "USERNAME": "a b", "PASSWORD": "p w#"}


def test_nothing_is_committed_and_nothing_set_is_said(tmp_path: Path) -> None:
    done = python(tmp_path, f"{TELL}\nsettings.apply()")
    assert told(done.stdout) == {}
    assert done.returncode == 1
    assert "MLFLOW_TRACKING_URI is not set" in done.stderr


def test_address_and_login_are_taken_from_the_private_file(tmp_path: Path) -> None:
    private_file(tmp_path)
    assert applied(tmp_path) == OF_THE_FILE


def test_the_environment_goes_before_the_private_file(tmp_path: Path) -> None:
    private_file(tmp_path)
    address, login = {"MLFLOW_TRACKING_URI": "http://file:1/mlflow"}, {"MLFLOW_TRACKING_USERNAME": "c", "MLFLOW_TRACKING_PASSWORD": "d"}
    assert applied(tmp_path, **address, **login) == {"URI": "http://file:1/mlflow", "USERNAME": "c", "PASSWORD": "d"}
    assert applied(tmp_path, MLFLOW_TRACKING_PASSWORD="d") == OF_THE_FILE | {"PASSWORD": "d"}
    assert applied(tmp_path, MLFLOW_TRACKING_TOKEN="t") == {"URI": "http://file:1/mlflow/", "TOKEN": "t"}, "mlflow would prefer the two"


def test_a_user_left_in_the_shell_does_not_get_another_ones_password(tmp_path: Path) -> None:
    private_file(tmp_path)
    assert applied(tmp_path, MLFLOW_TRACKING_USERNAME="c") == OF_THE_FILE


@pytest.mark.parametrize("login", [{}, {"MLFLOW_TRACKING_USERNAME": "c", "MLFLOW_TRACKING_PASSWORD": "d"}])
def test_the_login_in_the_file_is_for_its_own_server_only(tmp_path: Path, login: dict[str, str]) -> None:
    private_file(tmp_path)
    own = {name.removeprefix("MLFLOW_TRACKING_"): value for name, value in login.items()}
    other = {"MLFLOW_TRACKING_URI": "http://environment:1/mlflow/", **login}
    assert applied(tmp_path, **other) == {"URI": "http://environment:1/mlflow/", **own}
    said = python(tmp_path, "settings.apply()", **other).stdout
    assert "is for http://file:1/mlflow/" in said
    assert "p w#" not in said


def test_a_login_in_a_file_without_address_is_sent_nowhere_else(tmp_path: Path) -> None:
    private_file(tmp_path, "MLFLOW_TRACKING_USERNAME=a MLFLOW_TRACKING_PASSWORD=b")
    done = python(tmp_path, f"settings.apply()\n{TELL}", MLFLOW_TRACKING_URI="http://environment:1/mlflow/")
    assert told(done.stdout) == {"URI": "http://environment:1/mlflow/"}
    assert "names no server" in done.stdout


@pytest.mark.parametrize("unset", ["", "unset MLFLOW_TRACKING_USERNAME MLFLOW_TRACKING_PASSWORD"])
def test_a_token_in_the_file_goes_before_the_login_left_in_the_shell(tmp_path: Path, unset: str) -> None:
    """As `mlwf server env --token` writes it; mlflow itself would send the old user and password."""
    private_file(tmp_path, f"export MLFLOW_TRACKING_URI=http://file:1/mlflow/\nexport MLFLOW_TRACKING_TOKEN=t\n{unset}\n")
    old = {"MLFLOW_TRACKING_URI": "http://file:1/mlflow/", "MLFLOW_TRACKING_USERNAME": "c", "MLFLOW_TRACKING_PASSWORD": "d"}
    assert applied(tmp_path, **old) == {"URI": "http://file:1/mlflow/", "TOKEN": "t"}


def test_a_user_in_the_file_goes_before_the_token_left_in_the_shell(tmp_path: Path) -> None:
    """As `mlwf server env` writes it."""
    lines = [f"export MLFLOW_TRACKING_{name}={value}" for name, value in (("URI", "http://file:1/"), ("USERNAME", "a"), ("PASSWORD", "b"))]
    private_file(tmp_path, "\n".join([*lines, "unset MLFLOW_TRACKING_TOKEN", ""]))
    for old in ({}, {"MLFLOW_TRACKING_URI": "http://file:1/"}):
        assert applied(tmp_path, MLFLOW_TRACKING_TOKEN="old", **old) == {"URI": "http://file:1/", "USERNAME": "a", "PASSWORD": "b"}


def test_what_the_file_unsets_is_not_taken_from_the_shell(tmp_path: Path) -> None:
    private_file(tmp_path, "export MLFLOW_TRACKING_URI=http://file:1/mlflow/\nunset MLFLOW_TRACKING_TOKEN\nexport MLFLOW_TRACKING_USERNAME")
    assert applied(tmp_path, MLFLOW_TRACKING_TOKEN="t", MLFLOW_TRACKING_USERNAME="c") == {"URI": "http://file:1/mlflow/", "USERNAME": "c"}


def test_a_registry_that_the_file_unsets_is_not_taken_from_the_shell(tmp_path: Path) -> None:
    """As `mlwf server env` writes it. Where the shell names another server, its registry is the shell's choice, too."""
    private_file(tmp_path, "export MLFLOW_TRACKING_URI=http://file:1/\nunset MLFLOW_TRACKING_TOKEN MLFLOW_REGISTRY_URI")
    old = {"MLFLOW_REGISTRY_URI": "http://old:1/"}
    assert applied(tmp_path, **old) == {"URI": "http://file:1/"}
    assert applied(tmp_path, MLFLOW_TRACKING_URI="http://shell:1/", **old) == {"URI": "http://shell:1/", "REGISTRY_URI": "http://old:1/"}


def test_a_corrected_file_counts_at_the_next_apply(tmp_path: Path) -> None:
    """Also after the module was loaded again, and beside an address that the shell has."""
    file = private_file(tmp_path)
    new = f"pathlib.Path({str(file)!r}).write_text(pathlib.Path({str(file)!r}).read_text().replace('p w#', 'new'))"
    for load in ("", "import importlib; importlib.reload(settings)\n"):
        for environ in ({}, {"MLFLOW_TRACKING_URI": "http://file:1/mlflow/"}):
            done = python(tmp_path, f"settings.apply()\n{new}\n{load}settings.apply()\n{TELL}", **environ)
            assert told(done.stdout) == OF_THE_FILE | {"PASSWORD": "new"}, done.stderr
            file.write_text(file.read_text().replace("new", "p w#"))


def test_what_is_typed_into_a_cell_counts_at_the_next_apply(tmp_path: Path) -> None:
    private_file(tmp_path)
    done = python(
        tmp_path, f"settings.apply()\nos.environ['MLFLOW_TRACKING_PASSWORD'] = 'typed'\nsettings.apply()\nsettings.apply()\n{TELL}"
    )
    assert told(done.stdout) == OF_THE_FILE | {"PASSWORD": "typed"}


def test_a_private_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    private_file(tmp_path, mode=0o640)
    done = python(tmp_path, "")
    assert done.returncode == 1
    assert "chmod 600" in done.stderr
    assert "p w#" not in done.stderr + done.stdout
