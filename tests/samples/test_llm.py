"""The LLM sample: a tiny base model is fine-tuned in the notebook, recorded on a real box, exported, and writes text."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.mlwf.exporting import arguments, info_of, run, the_package
from tests.mlwf.tracking import Tracking
from tests.samples.llm import MODEL, NOTEBOOK, SAMPLE, execute
from tests.support.box import PASSWORD, USER
from tests.support.sample_env import sample_environment

# The environment alone takes minutes to install on a busy machine.
pytestmark = [pytest.mark.heavy, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def python() -> Path:
    return sample_environment("llm_finetune") / "bin"


@pytest.fixture(scope="module")
def tiny(python: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Settings for the stand-ins of base model and data."""
    folder = tmp_path_factory.mktemp("tiny")
    subprocess.run([python / "python", SAMPLE / "make_tiny_base.py", folder], check=True, capture_output=True)
    more = {"EPOCHS": "8", "LEARNING_RATE": "5e-3", "MAX_LENGTH": "96", "HF_HUB_OFFLINE": "1"}
    return {"BASE_MODEL": str(folder / "base"), "DATASET": str(folder / "instructions.jsonl"), **more}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The user's own copy of the sample."""
    return Path(shutil.copytree(SAMPLE, tmp_path / "llm_finetune", ignore=shutil.ignore_patterns("__pycache__", "output")))


def versions(tracking: Tracking, name: str = MODEL) -> list[dict[str, Any]]:
    found = tracking.box.api("GET", "model-versions/search", params={"filter": f"name='{name}'"}).get("model_versions", [])
    return sorted(found, key=lambda each: int(each["version"]))


def generate(python: Path, folder: Path, model: Path, environ: dict[str, str]) -> str:
    surroundings = {"PATH": os.environ["PATH"], "HOME": str(folder), "HF_HUB_OFFLINE": "1", **environ}
    argv = [python / "python", SAMPLE / "generate_text_lora.py", model]
    done = subprocess.run(argv, cwd=folder, env=surroundings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_from_the_notebook_to_text(python: Path, tiny: dict[str, str], sleepy: Tracking, folder: Path, tmp_path: Path) -> None:
    """Run twice: two versions. What was recorded is exported and completes the walk-through's prompt."""
    environ = {**tiny, **sleepy.login, "MLFLOW_TRACKING_URI": sleepy.url}
    (folder / "mine.ipynb").write_text("what the group is not to read")
    for number in ("1", "2"):
        status, said = execute(python, folder, environ)
        assert status == 0, said[-4000:]
        assert "successfully finished finetuning" in said
        assert f"Created version '{number}' of model '{MODEL}'." in said
    assert [each["version"] for each in versions(sleepy)] == ["1", "2"]
    the_recorded_run(sleepy, tiny)

    done = run(tmp_path / "out", sleepy.environ, *arguments(sleepy.url, MODEL))
    assert done.returncode == 0, done.stderr
    package = the_package(tmp_path / "out")
    recorded = {str(path.relative_to(package / "artifacts")) for path in (package / "artifacts").rglob("*.safetensors")}
    assert recorded == {"artifacts/adapter/adapter_model.safetensors"}, "the adapter alone, without the base"
    assert "base\\_model" in info_of(package)["AdditionalInfo"], "the parameters are in the form"
    text = generate(python, tmp_path, package / "artifacts", {"BASE_MODEL": tiny["BASE_MODEL"]})
    assert text.startswith("What is Large language Models?")
    assert len(text.strip()) > len("What is Large language Models?")


def the_recorded_run(tracking: Tracking, tiny: dict[str, str]) -> None:
    run_id = versions(tracking)[0]["run_id"]
    data = tracking.box.api("GET", "runs/get", params={"run_id": run_id})["run"]
    params = {each["key"]: each["value"] for each in data["data"]["params"]}
    assert (params["base_model"], params["epochs"], params["lora_rank"]) == (tiny["BASE_MODEL"], "8.0", "8")
    assert data["inputs"]["dataset_inputs"][0]["dataset"]["name"] == "instructions.jsonl"
    the_code(tracking, data)
    losses = tracking.box.api("GET", "metrics/get-history", params={"run_id": run_id, "metric_key": "loss"})["metrics"]
    values = [each["value"] for each in sorted(losses, key=lambda each: int(each["step"]))]
    assert len(values) == 48
    assert sum(values[-6:]) / 6 < 0.9 * sum(values[:6]) / 6, "the loss falls"


def the_code(tracking: Tracking, run: dict[str, Any]) -> None:
    """The files themselves. No commit: the user's copy is in no repository, whatever Jupyter's environment lies in."""
    listed = tracking.box.api("GET", "artifacts/list", params={"run_id": run["info"]["run_id"], "path": "code"})["files"]
    sizes = {each["path"].removeprefix("code/"): int(each["file_size"]) for each in listed}
    assert set(sizes) == {NOTEBOOK, "settings.py", "requirements.txt"}
    assert sizes == {name: (SAMPLE / name).stat().st_size for name in sizes}
    assert not [each for each in run["data"]["tags"] if each["key"].startswith("mlflow.source.git.")]


def test_with_the_base_no_hub_is_needed(python: Path, tiny: dict[str, str], sleepy: Tracking, folder: Path, tmp_path: Path) -> None:
    environ = {**tiny, **sleepy.login, "MLFLOW_TRACKING_URI": sleepy.url, "WITH_BASE": "yes", "MODEL_NAME": "whole", "MAX_STEPS": "2"}
    (folder / "requirements.txt").unlink()
    status, said = execute(python, folder, environ)
    assert status == 0, said[-4000:]
    assert f"Not recorded, since it is not there: {folder / 'requirements.txt'}\n" in said
    done = run(tmp_path / "out", sleepy.environ, *arguments(sleepy.url, "whole"))
    assert done.returncode == 0, done.stderr
    text = generate(python, tmp_path, the_package(tmp_path / "out") / "artifacts", {})
    assert text.startswith("What is Large language Models?")


def without_training(folder: Path) -> None:
    """Sections 1, 3, 4 and 5 are left of the notebook: what a user runs in a new kernel after a training."""
    notebook = json.loads((folder / NOTEBOOK).read_text("utf-8"))
    section, kept = "", []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        section = source[3] if source.startswith("## ") else section
        kept += [] if section == "2" else [cell]
    assert len(kept) == len(notebook["cells"]) - 3
    (folder / NOTEBOOK).write_text(json.dumps(notebook | {"cells": kept}), "utf-8")


def test_a_lost_login_costs_no_training(python: Path, tiny: dict[str, str], sleepy: Tracking, folder: Path, tmp_path: Path) -> None:
    """The password was changed while it trained: the recording says so. Corrected in the file, a new kernel records that training."""
    file = tmp_path / ".config" / "mlwf" / "tracking.env"
    file.parent.mkdir(parents=True)
    file.write_text(f"MLFLOW_TRACKING_URI={sleepy.url}\nMLFLOW_TRACKING_USERNAME={USER}\nMLFLOW_TRACKING_PASSWORD='an old one'\n")
    file.chmod(0o600)
    named = {**tiny, "MODEL_NAME": "lost"}
    status, said = execute(python, folder, {**named, "MAX_STEPS": "2"})
    assert status != 0
    assert "Unknown user, wrong password" in said
    assert (folder / "output" / "adapter" / "adapter_model.safetensors").exists()

    file.write_text(file.read_text().replace("an old one", PASSWORD))
    without_training(folder)
    status, said = execute(python, folder, named)
    assert status == 0, said[-4000:]
    assert "finished finetuning" not in said
    assert "Created version '1' of model 'lost'." in said
    (version,) = versions(sleepy, "lost")
    data = sleepy.box.api("GET", "runs/get", params={"run_id": version["run_id"]})["run"]["data"]
    assert {"key": "max_steps", "value": "2"} in data["params"], "the training's, not the new kernel's"
    query = {"run_id": version["run_id"], "metric_key": "loss"}
    assert len(sleepy.box.api("GET", "metrics/get-history", params=query)["metrics"]) == 2
