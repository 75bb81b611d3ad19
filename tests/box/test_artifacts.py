"""Artifacts through the box: to the object store, streamed, bounded, harmless."""

import pytest
import requests

from tests.support.box import Box
from tests.support.s3 import S3Store

pytestmark = pytest.mark.box


def new_run(box: Box) -> tuple[str, str]:
    """Experiment and run ids in the default experiment."""
    run = box.api("POST", "runs/create", json={"experiment_id": "0"})["run"]["info"]
    return run["run_id"], run["artifact_uri"]


def artifact_path(uri: str) -> str:
    assert uri.startswith("mlflow-artifacts:/")
    return f"/api/2.0/mlflow-artifacts/artifacts/{uri.removeprefix('mlflow-artifacts:/')}"


def test_an_artifact_lands_under_the_servers_own_prefix(box: Box, s3_store: S3Store) -> None:
    run_id, uri = new_run(box)
    assert uri == f"mlflow-artifacts:/0/{run_id}/artifacts"
    answer = box.request("PUT", f"{artifact_path(uri)}/a dir/ü%3F.txt", data=b"content")
    assert answer.status_code == 200, answer.text
    key = f"{box.settings['prefix']}/0/{run_id}/artifacts/a dir/ü?.txt"
    assert s3_store.client().get_object(Bucket=box.settings["bucket"], Key=key)["Body"].read() == b"content"
    assert box.request("GET", f"{artifact_path(uri)}/a dir/ü%3F.txt").content == b"content"
    listed = box.api("GET", "artifacts/list", params={"run_id": run_id, "path": "a dir"})
    assert [file["path"] for file in listed["files"]] == ["a dir/ü?.txt"]


@pytest.mark.parametrize(
    "path",
    ["/get-artifact?run_id={run}&path=x.html", "//get-artifact?run_id={run}&path=x.html", "/./%67et-artifact?run_id={run}&path=x.html"]
    + ["/api/2.0/mlflow-artifacts/artifacts/0/{run}/artifacts/x.html", "/ajax-api/2.0/mlflow-artifacts/artifacts/0/{run}/artifacts/x.html"]
    + ["/%61jax-api//2.0/mlflow-artifacts/artifacts/0/{run}/artifacts/x.html"],
)
def test_uploaded_pages_are_sandboxed_however_the_path_is_spelled(box: Box, path: str) -> None:
    run_id, uri = new_run(box)
    box.request("PUT", f"{artifact_path(uri)}/x.html", data=b"<script>1</script>")
    session = requests.Session()
    prepared = session.prepare_request(requests.Request("GET", box.url, auth=box.auth))
    prepared.url = box.url + path.format(run=run_id)
    answer = session.send(prepared, timeout=60)
    assert answer.content == b"<script>1</script>", answer.text
    assert answer.headers["Content-Security-Policy"] == "sandbox"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
