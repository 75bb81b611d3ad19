"""A site whose one server runs in containers on a real daemon, by a service account that is not root."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlwf.secret import Secret

from backend import versions
from backend.adapters.trial import HttpTrial
from backend.networks import layout
from backend.networks.layout import install_id
from backend.reconcile.reconciler import Reconciler
from backend.runtimes.docker import Engine
from backend.serving import wiring
from backend.wishes.values import CreateWish
from demo.ports import free_range
from tests.service.engine.crash_child import Crash, run_once
from tests.service.engine.real_site import PASSWORD, RealSite
from tests.service.engine.support import ALICE, FakeStore, asking
from tests.support.account import ACCOUNT, service_account
from tests.support.box import MLFLOW_VERSION
from tests.support.docker import DOCKERD, ROOT, Docker, DockerError, with_programs

GATE_NETWORK, MLFLOW_NETWORK = "10.214.2.0/24", "10.214.3.0/24"
PORTS = 4
BOUNDS = """
from pathlib import Path
def read(name): return Path('/sys/fs/cgroup', name).read_text().split()
if Path('/sys/fs/cgroup/cgroup.controllers').exists():  # version 2, where swap is counted by itself
    (memory,), (swap,), pids, cpu = read('memory.max'), read('memory.swap.max'), read('pids.max'), read('cpu.max')
    print(memory, int(memory) + int(swap), *pids, *cpu)
else:
    files = ('memory/memory.limit_in_bytes', 'memory/memory.memsw.limit_in_bytes', 'pids/pids.max')
    print(*map(lambda name: read(name)[0], (*files, 'cpu/cpu.cfs_quota_us', 'cpu/cpu.cfs_period_us')))
"""


class DockerSite(RealSite):
    version = MLFLOW_VERSION
    docker: Docker
    engine: Engine
    """The test's own; the service has others."""
    stop: threading.Event
    thread: threading.Thread

    def containers(self) -> dict[str, str]:
        return {role: found.name for role, found in self.engine.of(self.one().id, fresh=True).items()}

    def inside(self, role: str, code: str) -> subprocess.CompletedProcess[str]:
        """Run Python as that container's own user."""
        argv = ["docker", "exec", self.containers()[role], "/opt/aihub/env/bin/python", "-I", "-c", code]
        return subprocess.run(argv, env=self.docker.environment, capture_output=True, text=True, timeout=60, check=False)

    def bounds(self, role: str) -> tuple[int, int, int, float]:
        """Of that container's control groups: memory, memory with swap, processes, processors."""
        seen = self.inside(role, BOUNDS)
        assert seen.returncode == 0, seen.stderr
        memory, with_swap, pids, quota, period = map(int, seen.stdout.split())
        return memory, with_swap, pids, quota / period

    def reconciler(self, **given: Any) -> Reconciler:
        """As the service's: what belongs to a box's own uids is copied by containers."""
        return super().reconciler(keeper=wiring.make_keeper(self.settings), **given)

    def start_service(self) -> None:
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.reconciler().run, args=(self.stop,))
        self.thread.start()

    def stop_service(self) -> None:
        self.stop.set()
        self.thread.join(30)

    def daemon(self, verb: str, *options: str, **environment: str) -> None:
        """`bin/dockerd stop` or `start`: what a host's boot, or an upgrade of Docker, does to the containers."""
        environment = {**with_programs(self.docker.programs), "DOCKERD_OPTIONS": " ".join(options), **environment}
        run_as_root(DOCKERD, verb, self.docker.home, **environment)

    def started_at(self) -> dict[str, tuple[str, int]]:
        """When each container was started, and its first process."""
        found = {role: json.loads(self.docker.run("inspect", name))[0]["State"] for role, name in self.containers().items()}
        return {role: (state["StartedAt"], state["Pid"]) for role, state in found.items()}

    def run_and_die(self, where: Crash) -> None:
        """One run of the reconciler in a process of its own, killed there."""
        code = "import sys; from tests.service.engine.docker_site import run_and_die; run_and_die(*sys.argv[1:])"
        about = (self.docker.home, self.settings.state_dir, self.settings.port_first, where.where, where.call, "after" * where.after)
        argv = [sys.executable, "-c", code, *map(str, about)]
        done = subprocess.run(argv, cwd=ROOT, user=0, group=0, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == -signal.SIGKILL, f"{where} was not passed: {done.returncode} {done.stderr}"

    def is_back(self) -> bool:
        return self.answers() and self.one().status in {"running", "sleeping"}

    def make(self, wish: CreateWish | None = None) -> None:
        """The server, with alice as its user."""
        self.ask_and_wait(self.create() if wish is None else self.requests.create(ALICE, wish, request_id=None))
        users = [("alice", Secret(PASSWORD))]
        self.ask_and_wait(self.requests.set_users(asking(), users))


def run_as_root(*argv: str | Path, text: str | None = None, **environment: str) -> None:
    """A command with root's rights, in a process that acts as the service's account. Not by taking them back for a moment: the service's
    threads would have them, too.
    """
    surroundings = {**os.environ, **environment}
    subprocess.run(argv, input=text, text=True, env=surroundings, user=0, group=0, check=True, capture_output=True, timeout=120)


@contextlib.contextmanager
def state_folder() -> Iterator[Path]:
    """A folder for a site, removed whoever owns what is in it."""
    home = Path(tempfile.mkdtemp(prefix="aihub-state-", dir="/tmp"))
    try:
        yield home
    finally:
        shutil.rmtree(home)


@contextlib.contextmanager
def docker_site(
    docker: Docker, home: Path, *, real_store: Any = None, before: Callable[[DockerSite], None] | None = None, **choices: Any
) -> Iterator[DockerSite]:
    """The site with its service running and no server yet. This process is the service's account meanwhile. `real_store`: adapter for the
    object store; `before` is called as root, before the service starts.
    """
    docker.box_image(MLFLOW_VERSION)
    site = _site(docker, home, choices)  # as root, so that all is imported before
    if real_store is not None:
        site.store, site.trial = real_store, HttpTrial()  # type: ignore[assignment]
    if before is not None:
        before(site)
    for path in (home, *home.rglob("*")):
        os.chown(path, ACCOUNT, ACCOUNT)
    with service_account((docker.home / "docker.sock").stat().st_gid):
        site.start_service()
        try:
            yield site
        finally:
            site.stop_service()
            for container in site.engine.containers(fresh=True):
                site.engine.remove(container.id)
            for name in layout.network_names(install_id(home)):
                with contextlib.suppress(DockerError):  # none was made where the first start failed
                    docker.run("network", "rm", name)
            site.engine.close()
            site.registry.close()


def run_and_die(docker_home: str, home: str, port_first: str, *where: str) -> None:
    """What `DockerSite.run_and_die` starts, as root."""
    point, call, after = where
    docker = Docker(Path(docker_home))
    site = _site(docker, Path(home), {"port_first": int(port_first)})
    with service_account((docker.home / "docker.sock").stat().st_gid):
        run_once(site, Crash(point, int(call), after=bool(after)))


def _site(docker: Docker, home: Path, choices: dict[str, Any]) -> DockerSite:
    values: dict[str, Any] = {
        "docker_host": docker.host,
        "gate_network": GATE_NETWORK,
        "mlflow_network": MLFLOW_NETWORK,
        "port_first": free_range(PORTS),
        "stop_timeout": 20,
        "egress": ("s3.example.org:80",),
        **choices,
    }
    site = DockerSite(home, **values)
    site.settings = site.requests._settings = replace(site.settings, runtime="docker")
    site.docker = docker
    site.boxes, site.runtime = wiring.make_boxes(site.settings), wiring.make_runtime(site.settings)  # type: ignore[assignment]
    site.engine = Engine(address=docker.host, install=install_id(home), timeout=60)
    site.store = FakeStore()
    versions.publish(site.settings, site.runtime.versions())
    return site
