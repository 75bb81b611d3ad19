"""The image on Ubuntu 24.04, another base with another Python: built, and one box of it at work."""

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.box.test_image import Pod
from tests.support.box import MLFLOW_VERSION, environment, make_box
from tests.support.docker import Docker, DockerError
from tests.support.s3 import S3Store

pytestmark = [pytest.mark.box, pytest.mark.heavy, pytest.mark.long, pytest.mark.containers, pytest.mark.timeout(1800)]
TAG = f"aihub-box-ubuntu:{MLFLOW_VERSION}"


@pytest.fixture(scope="module")
def image(docker: Docker) -> str:
    docker.build_box_image(MLFLOW_VERSION, docker.base_image("noble"), TAG)
    return TAG


@pytest.fixture
def pod(docker: Docker, image: str, s3_store: S3Store, store_settings: dict[str, Any]) -> Iterator[Pod]:
    box = make_box(environment(), idle_seconds=3, **store_settings)
    box.write_settings(listen=f"0.0.0.0:{box.port}", drain_seconds=5)
    box.write_credentials(s3_store.owner.access_key, s3_store.owner.secret_key)
    pod = Pod(docker, image, box)
    try:
        pod.start()
        yield pod
    finally:
        pod.remove()


def test_a_box_on_ubuntu_answers_stores_sleeps_and_wakes(docker: Docker, pod: Pod) -> None:
    ask = ". /etc/os-release; echo $ID $VERSION_ID; /opt/aihub/env/bin/python -V; nginx -v 2>&1"
    inside = docker.run("exec", pod.mlflow, "sh", "-c", ask)
    assert inside.splitlines()[0] == "ubuntu 24.04"
    assert inside.splitlines()[1].startswith("Python 3.12.")
    run = pod.box.api("POST", "runs/create", json={"experiment_id": "0"})["run"]["info"]["run_id"]
    path, body = f"/api/2.0/mlflow-artifacts/artifacts/0/{run}/artifacts/big.bin", os.urandom(20 << 20)
    assert pod.box.request("PUT", path, data=body).status_code == 200
    pod.box.wait_state("asleep")
    assert pod.box.request("GET", path).content == body
    assert pod.box.api("GET", "runs/get", params={"run_id": run})["run"]["info"]["run_id"] == run
    with pytest.raises(DockerError, match="Read-only file system"):
        docker.run("exec", pod.mlflow, "touch", "/opt/aihub/x")
