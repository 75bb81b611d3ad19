"""The main job on containers: the same service, API, tools and client as on the process runtime."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from mlwf.client import User
from mlwf.secret import Secret

from tests.service.edge.live import Live, until
from tests.support.box import environment
from tests.support.docker import Docker
from tests.support.docker_service import docker_service
from tests.support.s3 import S3Store

# The SDK leaves a connection that a daemon's end broke to the garbage collector.
UNCLOSED = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
pytestmark = [UNCLOSED, pytest.mark.heavy, pytest.mark.timeout(900)]
GROUP, LOGIN = "root", ("alice", "correct horse battery staple")
JOB = """
import mlflow
with mlflow.start_run():
    mlflow.log_metric("loss", 0.5)
    mlflow.log_text("hello from a container", "notes/hello.txt")
print(mlflow.artifacts.load_text(mlflow.last_active_run().info.artifact_uri + "/notes/hello.txt"))
"""


@pytest.fixture(scope="module")
def live(docker: Docker, s3_store: S3Store) -> Iterator[Live]:
    with docker_service(docker, s3_store) as running:
        yield running


def test_create_train_stop_start_delete_restore(live: Live, s3_store: S3Store, tmp_path: Path) -> None:
    bucket, owner = s3_store.make_bucket(), s3_store.owner
    keys = {"access_key_id": owner.access_key, "secret_access_key": Secret(owner.secret_key)}
    with live.client() as client:
        client.wait(client.create(group=GROUP, env_name="wine", bucket=bucket, **keys), timeout=180)  # type: ignore[arg-type]
        url = client.server(GROUP, "wine").inside_url or ""
        assert requests.get(f"{url}version", timeout=20).status_code == 200
        assert experiments(url) == 401, "nobody before users are registered"
        client.wait(client.set_users(GROUP, "wine", [User(LOGIN[0], Secret(LOGIN[1]))]), timeout=60)
        assert "hello from a container" in train(url, tmp_path)
        assert any(each["Key"].endswith("notes/hello.txt") for each in s3_store.client().list_objects_v2(Bucket=bucket)["Contents"])
        for ask in (client.stop, client.start):
            client.wait(ask(GROUP, "wine"), timeout=120)
        assert experiments(url) == 200
        client.wait(client.delete(GROUP, "wine"), timeout=120)
        with pytest.raises(requests.ConnectionError):
            experiments(url)
        client.wait(client.restore(GROUP, "wine"), timeout=180)
        assert runs(url) == 1


def test_the_service_is_killed_and_started_again(live: Live) -> None:
    """The servers answer meanwhile, and the next reconciler finds them as they are."""
    with live.client() as client:
        url = client.server(GROUP, "wine").inside_url or ""
    assert live.process is not None
    live.process.kill()
    live.process.wait()
    assert experiments(url) == 200
    live.start()
    with live.client() as client:
        until(lambda: client.server(GROUP, "wine").status in {"running", "sleeping"}, what="the server's status")
    assert experiments(url) == 200


def experiments(url: str) -> int:
    return requests.get(f"{url}api/2.0/mlflow/experiments/search", params={"max_results": 1}, auth=LOGIN, timeout=60).status_code


def runs(url: str) -> int:
    answer = requests.post(f"{url}api/2.0/mlflow/runs/search", json={"experiment_ids": ["0"]}, auth=LOGIN, timeout=60)
    assert answer.status_code == 200, answer.text
    return len(answer.json().get("runs", []))


def train(url: str, folder: Path) -> str:
    """Plain mlflow, as a job."""
    login = {"MLFLOW_TRACKING_URI": url, "MLFLOW_TRACKING_USERNAME": LOGIN[0], "MLFLOW_TRACKING_PASSWORD": LOGIN[1]}
    argv = [environment() / "bin" / "python", "-c", JOB]
    surroundings = {"PATH": os.environ["PATH"], "HOME": str(folder), **login}
    done = subprocess.run(argv, cwd=folder, env=surroundings, capture_output=True, text=True, check=False, timeout=170)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
