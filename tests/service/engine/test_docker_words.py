"""Why a server in containers did not start, in the words of the part that failed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from backend.messages import describe_stored
from tests.service.engine.docker_site import docker_site, state_folder
from tests.support.box import MLFLOW_VERSION
from tests.support.docker import Docker

pytestmark = [pytest.mark.heavy, pytest.mark.containers, pytest.mark.timeout(600)]
OWN_IMAGE = "aihub-ends-at-once:{version}"
WORDS = "these are the last words of it"
# Without the bytecode, which nobody compares with its source.
DOCKERFILE = """
FROM {image}
USER 0:0
RUN echo 'raise SystemExit("{words}")' >/opt/aihub/tracking_server/{module}; find /opt/aihub/tracking_server -name '*.pyc' -delete
USER 65534:65534
"""
PARTS = {"the guard": "guard/main.py", "MLflow": "mlflow_process/__main__.py"}


@pytest.fixture(params=PARTS)
def image(request: pytest.FixtureRequest, docker: Docker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of an image in which that part ends at once."""
    tag, folder = OWN_IMAGE.format(version=MLFLOW_VERSION), tmp_path_factory.mktemp("image")
    text = DOCKERFILE.format(image=docker.box_image(MLFLOW_VERSION), words=WORDS, module=PARTS[request.param])
    (folder / "Dockerfile").write_text(text)
    docker.run("build", "--quiet", "--tag", tag, str(folder))
    yield OWN_IMAGE
    docker.run("rmi", tag)


def test_what_it_said_itself_is_in_the_operations_failure(docker: Docker, image: str):
    with state_folder() as home, docker_site(docker, home, image=image, start_timeout=60) as site:
        failed = site.ask_and_wait(site.create(), "failed", seconds=300)
        assert failed.error is not None
        assert failed.error["code"] == "box_failed_to_start", failed.error
        assert WORDS in failed.error["log"], failed.error
        assert WORDS in describe_stored(failed.error, "en")["log"]
        assert site.engine.containers(fresh=True) == ()
