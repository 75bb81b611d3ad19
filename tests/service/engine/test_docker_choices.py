"""What a server in containers gets by the choice of its members and of the site: another size, a store of the site's own authority."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlwf.secret import Secret

from backend.adapters.s3 import S3
from backend.domain import StorageKey
from backend.runtimes.docker_spec import GATE_CPUS, GATE_MEMORY, GATE_PIDS
from backend.wishes.values import CreateWish
from tests.service.engine.docker_site import DockerSite, docker_site, state_folder
from tests.service.engine.support import GROUP, asking, until
from tests.support.box import MLFLOW_VERSION
from tests.support.docker import Docker
from tests.support.docker_service import reachable_by_https
from tests.support.s3 import S3Store
from tests.support.tls import Authority

pytestmark = [pytest.mark.heavy, pytest.mark.containers, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def authority() -> Iterator[Authority]:
    """In a folder that the service's account may enter, which pytest's are not."""
    with tempfile.TemporaryDirectory(prefix="ca-", dir="/tmp") as name:
        yield Authority(Path(name))


@pytest.fixture(scope="module")
def site(docker: Docker, s3_store: S3Store, authority: Authority) -> Iterator[DockerSite]:
    """Its store's certificate is trusted by `s3_ca_file` alone."""
    bucket, owner, ca_file = s3_store.make_bucket(), s3_store.owner, authority.ca_file
    with (
        state_folder() as home,
        reachable_by_https(docker, s3_store, authority) as endpoint_url,
        docker_site(
            docker,
            home,
            real_store=S3(ca_file=ca_file),
            s3_ca_file=ca_file,
            region=s3_store.region,
            egress=(endpoint_url.removeprefix("https://"),),
        ) as site,
    ):
        wish = CreateWish(
            group=GROUP.name,
            env_name="wine",
            bucket=bucket,
            key=StorageKey(access_key_id=owner.access_key, secret_access_key=Secret(owner.secret_key)),
            endpoint_url=endpoint_url,
            mlflow_version=MLFLOW_VERSION,
        )
        site.make(wish)
        yield site


def test_artifacts_go_to_a_store_that_the_hosts_ca_file_vouches_for(site: DockerSite, authority: Authority):
    run = site.call("runs/create", {"experiment_id": "0", "start_time": 1})["run"]["info"]["run_id"]
    path = f"/api/2.0/mlflow-artifacts/artifacts/0/{run}/artifacts/notes.bin"
    sent = site.request("PUT", path, data=b"over TLS")
    assert sent.status_code == 200, sent.text
    assert site.request("GET", path).content == b"over TLS"
    seen = site.inside("mlflow", f"print(open({str(authority.ca_file)!r}).read(), end='')")
    assert seen.stdout == authority.ca_file.read_text(), "the file is the host's"


def processes_of_mlflow(site: DockerSite) -> int:
    """Of one that is awake: it may have fallen asleep before it was looked at."""
    assert site.experiments()
    return site.docker.run("top", site.containers()["mlflow"], "-o", "pid,args").count("mlflow_process")


def test_another_size_is_in_force_as_the_kernel_says_and_in_the_number_of_workers(site: DockerSite):
    small, medium = site.settings.sizes[:2]
    assert (small.workers, medium.workers) == (1, 2)
    until(lambda: processes_of_mlflow(site) == 1, 60)
    site.ask_and_wait(site.requests.resize(asking(), medium.name), seconds=180)
    until(site.is_back, 60)
    assert site.bounds("mlflow") == (medium.memory, medium.memory, medium.pids, medium.cpus)
    assert site.bounds("gate") == (GATE_MEMORY, GATE_MEMORY, GATE_PIDS, GATE_CPUS), "it is the same for every size"
    until(lambda: processes_of_mlflow(site) == 3, 60)  # two workers, and what started them
    assert site.one().size == medium.name
