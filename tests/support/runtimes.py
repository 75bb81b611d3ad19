"""One suite for both runtimes: what its servers are is chosen here, by the fixture `containers` (a daemon, or None for processes)."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from backend.networks.layout import install_id
from backend.runtimes.proctable import processes_of
from backend.settings import Settings
from tests.service.edge.live import Live, live_service
from tests.support.box import MLFLOW_VERSION, environment
from tests.support.docker import Docker
from tests.support.docker_service import docker_service
from tests.support.s3 import S3Store


def runtimes(*marks: pytest.MarkDecorator) -> list[Any]:
    """Parameters of the fixture `containers`. `marks`: more for the half in containers (`long`: outside of CI's hour)."""
    return ["process", pytest.param("docker", marks=[pytest.mark.heavy, pytest.mark.containers, *marks])]


def on_both_runtimes(*marks: pytest.MarkDecorator) -> pytest.MarkDecorator:
    """For a module's `pytestmark`, where the half in containers has more marks than usual."""
    return pytest.mark.parametrize("containers", runtimes(*marks), indirect=True, scope="module")


@contextlib.contextmanager
def service_on(containers: Docker | None, store: S3Store, **settings: Any) -> Iterator[Live]:
    """A running service with that object store, whose servers are containers of that daemon, or processes."""
    if containers is not None:
        with docker_service(containers, store, **settings) as live:
            yield live
        return
    choices = {"envs_dir": str(environment().parent), "mlflow_versions": [MLFLOW_VERSION], "endpoint_url": store.endpoint_url}
    with live_service(**choices | settings) as live:
        live.start()
        yield live


def server_processes(containers: Docker | None, state: Path) -> list[psutil.Process]:
    """All processes of a service's servers."""
    if containers is None:
        found = []
        for pid in {process.pid for box in (state / "servers").iterdir() for process in processes_of(box)}:
            with contextlib.suppress(psutil.NoSuchProcess):  # it ended while we looked
                found.append(psutil.Process(pid))
        return found
    names = containers_of(containers, state)
    first = [psutil.Process(int(containers.run("inspect", "--format", "{{.State.Pid}}", name))) for name in names]
    return [*first, *(child for each in first for child in each.children(recursive=True))]


def containers_of(docker: Docker, state: Path) -> list[str]:
    """Names of a service's containers, those that ended included."""
    return docker.run("ps", "--all", "--filter", f"label=org.aihub.install={install_id(state)}", "--format", "{{.Names}}").split()


def is_open(path: Path) -> bool:
    """Whether others may do anything with a file than its owner, and in containers the group that is one box's alone."""
    found = path.stat()
    return bool(found.st_mode & (0o007 if found.st_gid >= Settings.uid_first else 0o077))
