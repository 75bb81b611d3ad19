"""The service is killed at each step of a create and of a delete of a server in containers, in between and in the middle: the next one
reaches what was asked, and nothing is left over. What is alike on both runtimes is in test_crashes.py.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator

import pytest

from backend.domain import OperationKind
from backend.networks import layout
from backend.networks.layout import install_id
from backend.plans.catalogue import PLANS
from backend.registry.models import Operation
from backend.runtimes import docker_seen
from backend.wishes import portpool
from tests.service.engine.crash_child import Crash
from tests.service.engine.docker_site import DockerSite, docker_site, state_folder
from tests.service.engine.support import ADMIN, until
from tests.support.docker import Docker

pytestmark = [pytest.mark.heavy, pytest.mark.containers, pytest.mark.timeout(600)]


def steps_of(kind: OperationKind) -> list[Crash]:
    """Before the first, and after each, when the registry does not know yet that it is done."""
    names = [step.name for step in PLANS[kind].steps]
    return [Crash(f"{kind}.{names[0]}.begun"), *(Crash(f"{kind}.{name}.done") for name in names)]


def after(call: str, *numbers: int) -> list[Crash]:
    return [Crash(f"backend.runtimes.docker:Engine.{call}", number, after=True) for number in numbers]


# The first container that is made in a create is the keeper's, which gives the folders their owners; then come MLflow's and the gate's.
CREATE = [
    *after("_make_network", 1, 2),
    *after("create", 1, 2, 3),
    *after("start", 1, 2, 3),
    *after("_wait", 1),
    *steps_of(OperationKind.CREATE),
]
# The gate is stopped first. The keeper's containers copy the database, and remove the folder.
DELETE = [
    *after("stop", 1, 2),
    *after("remove", 1, 3),
    *after("create", 1, 2),
    *after("start", 1, 2),
    *after("_wait", 1, 2),
    *steps_of(OperationKind.DELETE),
]


@pytest.fixture(scope="module")
def site(docker: Docker) -> Iterator[DockerSite]:
    with state_folder() as home, docker_site(docker, home, port_rest_days=0) as site:
        site.stop_service()
        yield site


@contextlib.contextmanager
def the_next_service(site: DockerSite, asked: Operation) -> Iterator[None]:
    """It has brought that operation to its end, and runs on meanwhile."""
    assert site.operation(asked).finished_at is None
    site.start_service()
    try:
        site.ask_and_wait(asked)
        yield
    finally:
        site.stop_service()


def run_as_root(*argv: str) -> list[str]:
    return subprocess.run(argv, user=0, group=0, capture_output=True, text=True, check=True).stdout.splitlines()


def rules() -> list[str]:
    """The host's firewall: what Docker has in it, and tables beside."""
    return [line for line in run_as_root("iptables-save") if line.startswith("-A")] + run_as_root("nft", "list", "tables")


def containers(site: DockerSite) -> list[str]:
    """All that have the label of this installation, and in which state. Those that do one thing are removed when they surely are nobody's
    any more; here that is at once.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(docker_seen, "LEFT_SECONDS", -1.0)
        patch.setattr(docker_seen, "ANSWERS", -1)
        site.runtime.tidy()
    label = f"label=org.aihub.install={install_id(site.settings.state_dir)}"
    return sorted(site.docker.run("ps", "--all", "--filter", label, "--format", "{{.Names}} {{.State}}").splitlines())


def networks(site: DockerSite) -> list[str]:
    label = f"label=org.aihub.install={install_id(site.settings.state_dir)}"
    return sorted(site.docker.run("network", "ls", "--filter", label, "--format", "{{.Name}}").splitlines())


def folders(site: DockerSite) -> tuple[list[str], list[str]]:
    """Of servers, and of what is kept of them; unfinished ones included."""
    found = [[path.name for path in place.glob("*")] for place in (site.settings.servers_dir, site.settings.kept_dir)]
    return found[0], found[1]


def assert_runs(site: DockerSite) -> None:
    server = site.one()
    until(site.is_back, 60)
    own = sorted(f"{name} running" for name in site.containers().values())
    assert len(own) == 2
    until(lambda: containers(site) == own, 20)
    assert networks(site) == sorted(layout.network_names(install_id(site.settings.state_dir)))
    assert folders(site) == ([server.id], [])
    assert not site.orphans()
    assert [line for line in rules() if f" {server.port} " in f"{line} "], "as the assertion of the opposite has it"


def assert_is_gone(site: DockerSite, port: int, kept: list[str]) -> None:
    until(lambda: containers(site) == [], 20)
    assert networks(site) == sorted(layout.network_names(install_id(site.settings.state_dir)))
    assert folders(site) == ([], kept)
    assert not site.orphans()
    assert [line for line in rules() if f" {port} " in f"{line} "] == []
    assert portpool.is_bindable(site.settings.listen_address, port)


@pytest.mark.parametrize(("create", "delete"), list(zip(CREATE, DELETE, strict=True)), ids=str)
def test_killed_in_a_create_and_in_a_delete(site: DockerSite, create: Crash, delete: Crash) -> None:
    if "_make_network" in create.where:
        for name in networks(site):
            site.docker.run("network", "rm", name)
    asked = site.create()
    site.run_and_die(create)
    with the_next_service(site, asked):
        assert_runs(site)
    server, before = site.one(), rules()
    asked = site.ask("delete")
    site.run_and_die(delete)
    with the_next_service(site, asked):
        assert site.one().status == "deleted"
        assert_is_gone(site, server.port, [server.id])
        assert (site.kept.folder(server.id) / "mlflow.db").exists()
        site.ask_and_wait(site.ask("purge", caller=ADMIN))
    assert_is_gone(site, server.port, [])
    assert set(rules()) < set(before)
