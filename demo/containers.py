"""The tracking servers of a demo made with DEMO_RUNTIME=docker: containers of a daemon that runs already, asked by its own command."""

import hashlib
import subprocess
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

from demo.boxes import STOP_SECONDS
from demo.errors import DemoError
from demo.home import Home
from demo.settings import DOCKER, MLFLOW_VERSION, PROCESS, Settings

IMAGE = f"aihub-box:{MLFLOW_VERSION}"
BRIDGE = ("network", "inspect", "bridge", "--format", "{{with index .IPAM.Config 0}}{{or .Gateway .Subnet}}{{end}}")
"""Asks for the daemon's own bridge, on which host and containers reach each other; no other machine is sent to its addresses."""


def choose_runtime(home: Home, settings: Settings) -> None:
    """What the servers are is chosen at the first start, and kept. Raises DemoError where it cannot be what was asked for."""
    if home.exists():
        there = DOCKER if home.state().docker_host else PROCESS
        if settings.runtime not in {None, there}:
            cure = "leave DEMO_RUNTIME out to go on with it, or start a new demo with DEMO_HOME=/another/folder"
            raise DemoError(f"the demo in {home.path} was made with DEMO_RUNTIME={there}: {cure}")
    elif settings.runtime == DOCKER:
        bridge = address_of(_docker(settings.docker_host, settings, *BRIDGE))
        home.save(replace(home.state(), docker_host=settings.docker_host, store_host=bridge))


def address_of(bridge: str) -> str:
    """The host's address on the bridge of which `BRIDGE` told: of one that the daemon has just made it names the network only."""
    return str(next(ip_network(bridge).hosts())) if "/" in bridge else bridge


def check_image(docker_host: str, settings: Settings) -> None:
    """Raises DemoError where the servers' image is not there, or no daemon."""
    if not _docker(docker_host, settings, "image", "ls", "--quiet", IMAGE):
        raise DemoError(f"the daemon at {docker_host} has no image {IMAGE}: build it with DOCKER_HOST={docker_host} make image")


def remove_containers(docker_host: str, settings: Settings, state_dir: Path) -> None:
    """End the servers and take their containers and networks away; gone already is fine. Whatever they hold is in the folder."""
    mine = ("--quiet", "--filter", f"label=org.aihub.install={install_id(state_dir)}")
    containers = _docker(docker_host, settings, "ps", "--all", *mine).split()
    if containers:
        _docker(docker_host, settings, "stop", "-t", f"{STOP_SECONDS:.0f}", *containers)
        _docker(docker_host, settings, "rm", "--force", *containers)
    networks = _docker(docker_host, settings, "network", "ls", *mine).split()
    if networks:
        _docker(docker_host, settings, "network", "rm", *networks)


def install_id(state_dir: Path) -> str:
    """What the service labels its containers and networks with (docs/howto/docker.md)."""
    return hashlib.sha256(str(state_dir.resolve()).encode()).hexdigest()[:8]


def _docker(docker_host: str, settings: Settings, *words: str) -> str:
    """What `docker WORDS…` wrote. Raises DemoError."""
    instead = "or leave DEMO_RUNTIME out for a demo without Docker"
    try:
        run = subprocess.run(
            ["docker", *words],
            env=settings.environment(DOCKER_HOST=docker_host),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        raise DemoError(f"there is no docker command on this machine: install it (Debian: apt-get install docker.io), {instead}") from None
    if run.returncode:
        why = (run.stderr.strip().splitlines() or ["no reason given"])[-1]
        cure = f"start Docker, join the group docker or set DOCKER_HOST, {instead}"
        raise DemoError(f"`docker {words[0]}` failed at {docker_host} ({why}): {cure}")
    return run.stdout.strip()
