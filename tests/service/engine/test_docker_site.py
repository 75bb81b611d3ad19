"""The whole engine on a real daemon: a server made, given users, stopped, deleted and restored in containers; and what happens to it on a
bad day. The service's account is not root.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backend import networks, versions, wiring
from backend.runtimes.containers import install_id
from backend.runtimes.docker import Engine
from backend.secret import Secret
from demo.ports import free_ports
from tests.service.engine.real_site import PASSWORD, RealSite
from tests.service.engine.support import ALICE, SECRET, FakeStore, until
from tests.support.account import ACCOUNT, service_account
from tests.support.box import MLFLOW_VERSION
from tests.support.docker import DOCKERD, Docker, DockerError, running_docker

# The SDK leaves a connection that a daemon's end broke to the garbage collector.
UNCLOSED = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
pytestmark = [UNCLOSED, pytest.mark.heavy, pytest.mark.timeout(600)]


class DockerSite(RealSite):
    version = MLFLOW_VERSION
    docker: Docker
    engine: Engine
    stop: threading.Event
    thread: threading.Thread

    def containers(self) -> dict[str, str]:
        return {role: found.name for role, found in self.engine.of(self.one().id, fresh=True).items()}

    def inside(self, role: str, code: str) -> subprocess.CompletedProcess[str]:
        """Run Python as that container's own user."""
        argv = ["docker", "exec", self.containers()[role], "/opt/aihub/env/bin/python", "-I", "-c", code]
        return subprocess.run(argv, env=self.docker.environment, capture_output=True, text=True, timeout=60, check=False)

    def start_service(self) -> None:
        self.stop = threading.Event()
        reconciler = self.reconciler(keeper=wiring.make_keeper(self.settings))
        self.thread = threading.Thread(target=reconciler.run, args=(self.stop,))
        self.thread.start()

    def stop_service(self) -> None:
        self.stop.set()
        self.thread.join(30)

    def daemon(self, verb: str) -> None:
        """`bin/dockerd stop` or `start`: what a host's boot, or an upgrade of Docker, does to the containers."""
        os.seteuid(0)
        try:
            subprocess.run([DOCKERD, verb, self.docker.home], check=True, capture_output=True, timeout=120)
        finally:
            os.seteuid(ACCOUNT)

    def is_back(self) -> bool:
        return self.answers() and self.one().status in {"running", "sleeping"}


@pytest.fixture(scope="module")
def site() -> Iterator[DockerSite]:
    with running_docker() as docker, contextlib.ExitStack() as stack:
        docker.box_image(MLFLOW_VERSION)
        home = Path(tempfile.mkdtemp(prefix="aihub-state-", dir="/tmp"))
        stack.callback(shutil.rmtree, home)
        made = _site(docker, home)  # as root, so that all is imported before
        for path in (home, *home.rglob("*")):
            os.chown(path, ACCOUNT, ACCOUNT)
        stack.enter_context(service_account((docker.home / "docker.sock").stat().st_gid))
        yield from _running(made)


def _site(docker: Docker, home: Path) -> DockerSite:
    first = free_ports(1)[0]
    choices: dict[str, Any] = {
        "docker_host": docker.host,
        "gate_network": "10.214.2.0/24",
        "mlflow_network": "10.214.3.0/24",
        "port_first": first,
        "stop_timeout": 20,
        "egress": ("192.0.2.7:443",),
    }
    site = DockerSite(home, **choices)
    site.settings = site.requests._settings = replace(site.settings, runtime="docker")
    site.docker = docker
    site.boxes, site.runtime = wiring.make_boxes(site.settings), wiring.make_runtime(site.settings)  # type: ignore[assignment]
    site.engine = Engine(address=docker.host, install=install_id(home), timeout=60)
    site.store = FakeStore()
    versions.publish(site.settings, site.runtime.versions())
    return site


def _running(site: DockerSite) -> Iterator[DockerSite]:
    site.start_service()
    try:
        site.ask_and_wait(site.create())
        site.ask_and_wait(site.requests.set_users(ALICE, "ga50000", "wine", [("alice", Secret(PASSWORD))], request_id=None))
        yield site
    finally:
        site.stop_service()
        for container in site.engine.containers(fresh=True):
            site.engine.remove(container.id)
        for name in networks.network_names(install_id(site.settings.state_dir)):
            with contextlib.suppress(DockerError):  # none was made where the first start failed
                site.docker.run("network", "rm", name)
        site.registry.close()


def test_it_serves_with_its_users(site: DockerSite):
    assert site.experiments() == ["Default"]
    site.call("experiments/create", {"name": "first"})


def test_neither_has_a_right_or_shows_a_secret(site: DockerSite):
    uid = site.one().uid
    for role, own in (("gate", uid), ("mlflow", uid + 1)):
        (found,) = json.loads(site.docker.run("inspect", site.containers()[role]))
        host = found["HostConfig"]
        assert (found["Config"]["User"], host["CapDrop"], host["CapAdd"]) == (f"{own}:{own}", ["ALL"], None)
        assert (host["ReadonlyRootfs"], host["Privileged"], host["SecurityOpt"]) == (True, False, ["no-new-privileges:true"])
        assert host["Memory"] == host["MemorySwap"] > 0
        assert host["PidsLimit"] > 0
        assert host["RestartPolicy"]["Name"] == "unless-stopped"
        text = json.dumps(found)
        assert SECRET not in text
        assert PASSWORD not in text
        status = site.inside(role, "print(open('/proc/1/status').read())").stdout
        assert "CapEff:\t0000000000000000" in status
        assert "NoNewPrivs:\t1" in status
        assert "Seccomp:\t2" in status


def test_mlflow_sees_no_file_of_the_guard(site: DockerSite):
    code = "import os; print([path for name in ('config', 'run', 'log') for path in os.listdir('/box/' + name)])"
    assert site.inside("mlflow", code).stdout.strip() == "[]"


def nft(rules: str) -> None:
    os.seteuid(0)
    try:
        subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
    finally:
        os.seteuid(ACCOUNT)


def test_the_firewall_refuses_all_but_the_allow_list(site: DockerSite):
    install = install_id(site.settings.state_dir)
    gateway, gate = "10.214.3.1", "10.214.2.2"
    with socket.create_server(("0.0.0.0", 0)) as listener:  # noqa: S104 (what a box must not reach)
        port = listener.getsockname()[1]

        def reaches(role: str, host: str, port: int) -> bool:
            return site.inside(role, f"import socket; socket.create_connection(({host!r}, {port}), 3)").returncode == 0

        assert reaches("mlflow", gateway, port), "without rules the host is open: what the rest of this test proves is theirs"
        nft(networks.ruleset(install, [], []))
        try:
            assert site.answers()
            for role, host, to in (
                ("mlflow", gateway, port),
                ("mlflow", gate, site.one().port),
                ("mlflow", "169.254.169.254", 80),
                ("gate", gateway, port),
                ("gate", "10.214.2.1", port),
            ):
                assert not reaches(role, host, to), f"{role} reaches {host}:{to}"
            nft(networks.ruleset(install, networks.targets([f"{gateway}:{port}"]), []))
            assert reaches("mlflow", gateway, port)
            assert not reaches("gate", gateway, port)
        finally:
            nft(f"delete table inet aihub_{install}\n")


def test_a_container_removed_by_hand_comes_back(site: DockerSite):
    for role in ("gate", "mlflow"):
        site.docker.run("rm", "-f", site.containers()[role])
        until(lambda: len(site.containers()) == 2 and site.is_back(), 90)
    assert "first" in site.experiments()


def test_memory_that_runs_out_ends_mlflow_and_not_the_server(site: DockerSite):
    site.experiments()
    hog = "b = bytearray()\nwhile True: b += b'x' * 50_000_000"
    assert site.inside("mlflow", hog).returncode != 0, "the kernel ended it"
    until(site.is_back, 90)
    assert "first" in site.experiments()


def test_after_a_boot_it_serves_though_the_service_is_down(site: DockerSite):
    """The daemon ends, and with it all containers; when it is back they start by themselves. Requests are answered meanwhile by nobody."""
    before = site.containers()
    site.stop_service()
    try:
        site.daemon("stop")
        assert not site.answers()
        site.daemon("start")
        until(site.answers, 90)
        assert "first" in site.experiments()
    finally:
        site.start_service()
    assert site.containers() == before
    until(site.is_back, 60)


def test_a_daemon_that_is_gone_is_no_server_that_failed(site: DockerSite):
    """While it is down the service goes on, says nothing that is not so, and finds everything again."""
    site.daemon("stop")
    try:
        asked = site.ask("stop")
        assert site.operation(asked).finished_at is None
    finally:
        site.daemon("start")
    until(lambda: site.operation(asked).finished_at is not None, 120)
    site.ask_and_wait(site.ask("start"))
    until(site.is_back, 90)


def test_stopped_it_has_no_container_and_started_it_is_the_same(site: DockerSite):
    site.ask_and_wait(site.ask("stop"))
    assert site.containers() == {}
    site.ask_and_wait(site.ask("start"))
    assert "first" in site.experiments()


def test_deleted_and_restored_with_what_was_in_it(site: DockerSite):
    uid = site.one().uid
    site.ask_and_wait(site.ask("delete"))
    assert list(site.boxes.ids()) == []
    site.ask_and_wait(site.ask("restore"))
    assert "first" in site.experiments()
    assert site.one().uid == uid
