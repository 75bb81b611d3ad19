"""What the daemon tells of itself: Docker's answer and Podman's, whole and with less in it."""

from pathlib import Path

import pytest

from backend.runtimes.docker_about import about_in

WHOLE: dict[str, object] = {
    "MemoryLimit": True,
    "SwapLimit": True,
    "CpuCfsQuota": True,
    "PidsLimit": True,
    "CgroupVersion": "2",
    "SecurityOptions": ["name=apparmor", "name=seccomp,profile=builtin", "name=cgroupns"],
    "DockerRootDir": "/var/lib/docker",
}
PODMAN: dict[str, object] = {
    **WHOLE,
    "SecurityOptions": ["name=seccomp,profile=default"],
    "Rootless": False,
    "BuildahVersion": "1.28.2",
    # with control groups of version 2 Podman 4 says so in any case
    "SwapLimit": False,
    "CpuCfsQuota": False,
}


@pytest.mark.parametrize(
    ("told", "lacks"),
    [
        ({}, ()),
        ({"MemoryLimit": False}, ("memory",)),
        ({"SwapLimit": False}, ("swap",)),
        ({"CpuCfsQuota": False, "PidsLimit": False}, ("cpus", "pids")),
        ({"SecurityOptions": ["name=apparmor"]}, ("seccomp",)),
        ({"SecurityOptions": None}, ("seccomp",)),
        ({"SecurityOptions": ["name=seccomp,profile=unconfined"]}, ("seccomp",)),
        ({"SecurityOptions": ["name=seccomp,profile=/etc/docker/ours.json"]}, ()),
    ],
)
def test_what_docker_leaves_out(told: dict[str, object], lacks: tuple[str, ...]) -> None:
    assert about_in({**WHOLE, **told}).lacks == lacks


@pytest.mark.parametrize(
    ("told", "lacks"),
    [
        ({}, ()),
        ({"MemoryLimit": False}, ("memory",)),
        ({"CgroupVersion": "1"}, ("swap", "cpus")),
        ({"SecurityOptions": None}, ("seccomp",)),
    ],
)
def test_what_podman_leaves_out(told: dict[str, object], lacks: tuple[str, ...]) -> None:
    assert about_in({**PODMAN, **told}).lacks == lacks


def test_a_daemon_that_tells_nothing_is_not_said_to_leave_anything_out() -> None:
    about = about_in({})
    assert (about.lacks, about.folder, about.rootless) == ((), None, False)


def test_where_its_files_are() -> None:
    assert about_in(WHOLE).folder == Path("/var/lib/docker")
