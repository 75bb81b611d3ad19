"""Renders the batch-connect app's files with real Ruby, many at once: Ruby takes longer to start than to render."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "deploy" / "site.yml.example"


def render(jobs: list[dict[str, Any]], *, site: Path = EXAMPLE, locale: str = "en") -> list[dict[str, Any]]:
    """For each job `{"result"}` or `{"error"}`; what a job says: tests/ood/render.rb."""
    environment = {"PATH": os.environ["PATH"], "HOME": "/home/alice", "LANG": "C.UTF-8", "AIHUB_SITE": str(site), "OOD_LOCALE": locale}
    done = subprocess.run(
        ["ruby", ROOT / "tests/ood/render.rb"], input=json.dumps(jobs), env=environment, cwd="/", capture_output=True, text=True, check=True
    )
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def form(*names: str) -> dict[str, Any]:
    """The job that renders the app's form with a sub-app over it."""
    return {"what": "form", "files": [str(ROOT / "form.yml.erb"), *(str(ROOT / "local" / name) for name in names)]}


def submit(values: dict[str, str]) -> dict[str, Any]:
    return {"what": "submit", "file": str(ROOT / "submit.yml.erb"), "values": values}


def qsub_options(folder: Path, values: dict[str, str]) -> list[str]:
    """Options of qsub as Open OnDemand's adapter for Grid Engine makes them of what is submitted, by its documented contract."""
    (answer,) = render([submit({**values, "cluster": "grid"})])
    script = answer["result"]["script"]
    queue = ["-q", values["bc_queue"]] if values["bc_queue"] else []
    hours = f"h_rt={int(values['bc_num_hours']):02d}:00:00"
    return ["-wd", str(folder), "-N", script["job_name"], "-o", f"{folder}/output.log", *queue, "-l", hours, *script["native"]]


def template(name: str, values: dict[str, str]) -> dict[str, Any]:
    return {"what": "template", "file": str(ROOT / "template" / name), "values": values}


SERVER = {
    "mlflow_task": "server",
    "group_name": "gaa50000",
    "env_name": "wine",
    "cloud_storage_bucket_name": "wine-models",
    "profile": "default",
    "at_end": "stop",
    "bc_num_hours": "8",
    "bc_queue": "gpu",
    "cluster": "one",
}
EXPORT = {
    "mlflow_task": "export",
    "group_name": "gaa50000",
    "env_name": "wine",
    "model_name": "ElasticnetWineModel",
    "model_version": "2",
    "output_dir": "/home/alice/mlflow",
    "bc_num_hours": "2",
    "bc_queue": "",
    "cluster": "one",
}
IMAGE = {
    "mlflow_task": "image",
    "model_package": "s3://models/wine/model.tar.gz",
    "group_name": "gaa50000",
    "env_name": "wine",
    "base_container_url": "docker://nvcr.io/nvidia/cuda:12.8.1-cudnn-runtime-ubuntu24.04",
    "output_dir": "/home/alice/mlflow",
    "bc_num_hours": "2",
    "bc_queue": "",
    "cluster": "one",
}
