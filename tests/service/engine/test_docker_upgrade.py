"""One server goes from a real MLflow to a real newer one and back, while clients write to it: in containers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from mlwf.secret import Secret

from backend.adapters.s3 import S3
from backend.domain import StorageKey
from backend.wishes.values import CreateWish
from tests.service.engine.contract_upgrade import MISLABELLED, Before, UpgradeContract, something_is_in
from tests.service.engine.docker_site import docker_site, state_folder
from tests.service.engine.support import GROUP
from tests.support.box import MLFLOW_VERSION, OLDEST_VERSION
from tests.support.docker import Docker
from tests.support.docker_service import reachable
from tests.support.s3 import S3Store

pytestmark = [pytest.mark.heavy, pytest.mark.containers, pytest.mark.timeout(900)]
OWN_IMAGE = "aihub-upgraded:{version}"


@pytest.fixture(scope="module")
def images(docker: Docker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of both versions' images, and of one that is not what it says."""
    with contextlib.ExitStack() as stack:
        for version in (OLDEST_VERSION, MLFLOW_VERSION):
            docker.run("tag", docker.box_image(version), OWN_IMAGE.format(version=version))
            stack.callback(docker.run, "rmi", OWN_IMAGE.format(version=version))
        folder = tmp_path_factory.mktemp("mislabelled")
        wrong, right = OWN_IMAGE.format(version=MISLABELLED), OWN_IMAGE.format(version=MLFLOW_VERSION)
        (folder / "Dockerfile").write_text(f"FROM {right}\nLABEL org.aihub.mlflow-version={MISLABELLED}\n")
        docker.run("build", "--quiet", "--tag", wrong, str(folder))
        stack.callback(docker.run, "rmi", wrong)
        yield OWN_IMAGE


@pytest.fixture(scope="module")
def before(docker: Docker, s3_store: S3Store, images: str) -> Iterator[Before]:
    bucket, owner = s3_store.make_bucket(), s3_store.owner
    with (
        state_folder() as home,
        reachable(docker, s3_store) as endpoint_url,
        docker_site(
            docker, home, real_store=S3(), image=images, region=s3_store.region, egress=(endpoint_url.removeprefix("http://"),)
        ) as site,
    ):
        wish = CreateWish(
            group=GROUP.name,
            env_name="wine",
            bucket=bucket,
            key=StorageKey(access_key_id=owner.access_key, secret_access_key=Secret(owner.secret_key)),
            endpoint_url=endpoint_url,
            mlflow_version=OLDEST_VERSION,
        )
        site.make(wish)
        yield something_is_in(site, lambda: {found.id for found in site.engine.of(site.one().id, fresh=True).values()})


class TestUpgradeInContainers(UpgradeContract):
    pass
