"""Which locations are a server's own, and that MLflow's API takes no others."""

import gzip
import json
import subprocess
from pathlib import Path

import pytest

from tests.support.box import Box
from tracking_server.mlflow_process.locations import Locations

LOCATIONS = Locations("own", "mlflow/k3v9x2m7q4ab")
OWN = [
    "s3://own/mlflow/k3v9x2m7q4ab",
    "s3://own/mlflow/k3v9x2m7q4ab/",
    "s3://own/mlflow/k3v9x2m7q4ab/1/run/artifacts/model",
    "mlflow-artifacts:/0/run/artifacts/model",
    "runs:/run/model",
    "models:/m-0123456789",
    "models:/wine/2",
    "models:/wine v1.0 (best)/2",
    "models:/wine#2/2",
    "runs:/run/my model",
    "mlflow-artifacts:/0/run/artifacts/my model",
    "s3://own/mlflow/k3v9x2m7q4ab/my data",
]
FOREIGN = [
    "",
    "relative/path",
    "/etc",
    "file:/etc",
    "file:///etc",
    "FILE:///etc",
    "s3://other/mlflow/k3v9x2m7q4ab/x",
    "s3://own",
    "s3://own/",
    "s3://own/mlflow/k3v9x2m7q4ab2/x",
    "s3://own/mlflow/k3v9x2m7q4ab/../other",
    "s3://own/mlflow/k3v9x2m7q4ab/%2e%2e/other",
    "s3://own/mlflow/k3v9x2m7q4ab/%252e%252e/other",
    "s3://own/mlflow/k3v9x2m7q4ab/..%2fother",
    "s3://own/mlflow/k3v9x2m7q4ab/x?versionId=1",
    "s3://own/mlflow/k3v9x2m7q4ab/x#y",
    "s3://user@own/mlflow/k3v9x2m7q4ab/x",
    "S3://own/mlflow/k3v9x2m7q4ab/x",
    "s3:/own/mlflow/k3v9x2m7q4ab/x",
    " s3://own/mlflow/k3v9x2m7q4ab/x",
    "s3://own /mlflow/k3v9x2m7q4ab/x",
    "s3://own/mlflow/k3v9x2m7q4ab /x",
    "s3://own/mlflow/k3v9x2m7q4ab/ ../x",
    "s3://own/mlflow/k3v9x2m7q4ab/a\\..\\b",
    " models:/wine/2",
    "models:/wine#/../2",
    "mlflow-artifacts://elsewhere/0/x",
    "mlflow-artifacts:/../other",
    "models://registry/m",
    "runs:/../x",
    "http://h/api/2.0/mlflow-artifacts/artifacts/0",
    "https://h/x",
    "ftp://h/x",
    "gs://b/x",
    "dbfs:/x",
    "s3://[::1/x",
]


@pytest.mark.parametrize("location", OWN)
def test_own_locations_are_fine(location: str) -> None:
    assert LOCATIONS.refusal(location) is None


@pytest.mark.parametrize("location", FOREIGN)
def test_others_are_refused_with_the_cure(location: str) -> None:
    assert "s3://own/mlflow/k3v9x2m7q4ab/" in str(LOCATIONS.refusal(location))


PREFIXES = ["/api/2.0", "/ajax-api/2.0"]
ELSEWHERE = ["s3://other-bucket/x", "file:///tmp/x", "/tmp/x", "http://127.0.0.1/x", "s3://{bucket}/elsewhere"]


def refused(answer: object) -> None:
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE"), answer.text  # type: ignore[attr-defined]


@pytest.mark.box
@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("location", ELSEWHERE)
def test_an_experiment_elsewhere_is_refused(box: Box, prefix: str, location: str) -> None:
    place = location.format(bucket=box.settings["bucket"])
    answer = box.request("POST", f"{prefix}/mlflow/experiments/create", json={"name": f"at {place}", "artifact_location": place})
    refused(answer)
    assert "mlflow-artifacts:/" in answer.json()["message"] or "scheme" in answer.json()["message"]


@pytest.mark.box
@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b'{"name": "n1", "artifact_location": "mlflow-artifacts:/1", "artifact_location": "s3://other/x"}', {}),
        (b'{"name": "n2", "artifactLocation": "s3://other/x"}', {}),
        (b'{"name": "n3", "artifact_location": "s3://other/x"}', {"Content-Type": "application/json; charset=utf-8; x=y"}),
        (json.dumps(json.dumps({"name": "n4", "artifact_location": "s3://other/x"})).encode(), {}),
        (b'{"name": "n5", "artifact\\u005flocation": "\\u0073\\u0033://other/x"}', {}),
        (gzip.compress(b'{"name": "n6", "artifact_location": "s3://other/x"}', mtime=0), {"Content-Encoding": "gzip"}),
        (b'{"name": "n7", "artifact_location": "s3://other/x"}', {"Content-Type": "text/plain"}),
    ],
)
def test_no_form_of_the_body_gets_a_location_past(box: Box, body: bytes, headers: dict[str, str]) -> None:
    headers = {"Content-Type": "application/json", **headers}
    answer = box.request("POST", "/api/2.0/mlflow/experiments/create", data=body, headers=headers)
    assert answer.status_code == 400, answer.text
    names = [each["name"] for each in box.api("POST", "experiments/search", json={"max_results": 1000})["experiments"]]
    assert not [name for name in names if name.startswith("n")], names


@pytest.mark.box
def test_a_model_version_from_elsewhere_is_refused_and_ours_is_not(box: Box) -> None:
    box.api("POST", "registered-models/create", json={"name": "wine"})
    for source in ("s3://other/x", "file:///etc", "/etc", "etc", "http://h/x"):
        refused(box.request("POST", "/api/2.0/mlflow/model-versions/create", json={"name": "wine", "source": source}))
    own = f"s3://{box.settings['bucket']}/{box.settings['prefix']}/1/x"
    version = box.api("POST", "model-versions/create", json={"name": "wine", "source": own})["model_version"]
    assert version["source"] == own


@pytest.mark.box
def test_a_trace_cannot_say_that_its_data_is_elsewhere(box: Box) -> None:
    info = {
        "trace_id": "tr-0123456789abcdef0123456789abcdef",
        "trace_location": {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "0"}},
        "request_time": "2026-11-24T00:00:00Z",
        "state": "OK",
        "tags": {"mlflow.artifactLocation": "s3://other/x"},
    }
    refused(box.request("POST", "/api/3.0/mlflow/traces", json={"trace": {"trace_info": info}}))
    info["tags"] = {}
    made = box.request("POST", "/api/3.0/mlflow/traces", json={"trace": {"trace_info": info}})
    assert made.status_code == 200, made.text
    tag = {"key": "mlflow.artifactLocation", "value": "s3://other/x"}
    for version in ("2.0", "3.0"):
        refused(box.request("PATCH", f"/api/{version}/mlflow/traces/{info['trace_id']}/tags", json=tag))


@pytest.mark.box
def test_a_location_that_is_in_the_database_already_is_not_used(box: Box, box_environment: Path) -> None:
    """Whatever way it came there: the server's key does not follow it."""
    statement = "update runs set artifact_uri = ? where run_uuid = ?"
    code = f"import sqlite3, sys\nwith sqlite3.connect(sys.argv[1]) as database: database.execute({statement!r}, sys.argv[2:])"
    run = box.api("POST", "runs/create", json={"experiment_id": "0"})["run"]["info"]["run_id"]
    python = box_environment / "bin" / "python"
    subprocess.run([python, "-c", code, box.home / "data" / "mlflow.db", "s3://other/x", run], check=True)
    refused(box.request("GET", "/get-artifact", params={"run_id": run, "path": "x"}))
    refused(box.request("GET", "/api/2.0/mlflow/artifacts/list", params={"run_id": run}))


@pytest.mark.box
def test_prompts_and_models_of_the_real_client_pass(box: Box, box_environment: Path) -> None:
    """The unmodified client registers a prompt, logs a model and loads it again."""
    code = """
import mlflow, mlflow.pyfunc
class Add(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input: list[int]) -> list[int]:
        return [each + 1 for each in model_input]
mlflow.set_experiment("client")
mlflow.genai.register_prompt(name="greet", template="Hello {{name}}")
with mlflow.start_run() as run:
    info = mlflow.pyfunc.log_model(name="model", python_model=Add(), registered_model_name="add v1.0 #1", pip_requirements=[])
    mlflow.log_text("text", "note.txt")
mlflow.MlflowClient().copy_model_version("models:/add v1.0 #1/1", "best")
for name in ("add v1.0 #1", "best"):
    assert mlflow.pyfunc.load_model(f"models:/{name}/1").predict([1]) == [2]
assert mlflow.artifacts.load_text(run.info.artifact_uri + "/note.txt") == "text"
"""
    environment = {
        "MLFLOW_TRACKING_URI": box.url,
        "MLFLOW_TRACKING_USERNAME": box.auth[0],
        "MLFLOW_TRACKING_PASSWORD": box.auth[1],
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PATH": "/usr/bin:/bin",
        "HOME": str(box.home),
    }
    python = box_environment / "bin" / "python"
    done = subprocess.run([python, "-P", "-c", code], env=environment, cwd=box.home, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
