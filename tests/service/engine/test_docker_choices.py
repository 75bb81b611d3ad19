"""What a server in containers gets by the choice of its members and of the site: another size, a store of the site's own authority."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from backend.runtimes.docker_spec import GATE_CPUS, GATE_MEMORY, GATE_PIDS
from tests.service.engine.docker_site import DockerSite
from tests.service.engine.secure_site import new_authority, secure_site, sent_and_fetched
from tests.service.engine.support import asking, until
from tests.support.docker import Docker
from tests.support.s3 import S3Store
from tests.support.tls import Authority

pytestmark = [pytest.mark.heavy, pytest.mark.containers, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def authority() -> Iterator[Authority]:
    with new_authority() as made:
        yield made


@pytest.fixture(scope="module")
def site(docker: Docker, s3_store: S3Store, authority: Authority) -> Iterator[DockerSite]:
    with secure_site(docker, s3_store, authority, s3_ca_file=authority.ca_file) as site:
        yield site


def test_artifacts_go_to_a_store_that_the_hosts_ca_file_vouches_for(site: DockerSite, authority: Authority):
    assert sent_and_fetched(site) == b"over TLS"
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
