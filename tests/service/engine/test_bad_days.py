"""Containers on bad days: what they need is missing, taken or full. Each is said with a cure, leaves nothing half-made, and is cured by
the next try.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from backend.networks.layout import install_id
from backend.registry.models import Operation
from tests.service.engine.docker_site import DockerSite, docker_site, state_folder
from tests.service.engine.support import until
from tests.support.box import MLFLOW_VERSION
from tests.support.docker import Docker
from tests.support.volume import fill, make_room, small_volume

pytestmark = [pytest.mark.heavy, pytest.mark.containers, pytest.mark.timeout(600)]
MEGABYTES, LOW = 96, 16 << 20
OWN_IMAGE = "aihub-of-a-bad-day:{version}"
INTEGRITY = """
import sqlite3
print(sqlite3.connect("file:/box/data/mlflow.db?mode=rw", uri=True).execute("PRAGMA integrity_check").fetchone()[0])
"""


@pytest.fixture(scope="module")
def site(docker: Docker) -> Iterator[DockerSite]:
    """Its servers' folders are on a small disk of their own, and its image has a name of its own. There is no server yet."""
    tag, choices = OWN_IMAGE.format(version=MLFLOW_VERSION), {"disk_least": 1 << 20, "disk_low": LOW, "image": OWN_IMAGE}
    with state_folder() as home, contextlib.ExitStack() as stack:
        servers = home / "servers"
        servers.mkdir()
        stack.enter_context(small_volume(servers, MEGABYTES))
        docker.run("tag", docker.box_image(MLFLOW_VERSION), tag)
        stack.callback(docker.run, "rmi", tag)
        yield stack.enter_context(docker_site(docker, home, **choices))


def failure(done: Operation) -> tuple[str, str]:
    assert done.error is not None
    return done.error["code"], str(done.error["params"].get("why", ""))


@contextlib.contextmanager
def stopped(site: DockerSite) -> Iterator[None]:
    """The server is stopped; at the end it is started, and serves what it served before."""
    site.ask_and_wait(site.ask("stop"))
    yield
    site.ask_and_wait(site.ask("start"))
    assert "first" in site.experiments()


def test_a_network_that_is_taken_leaves_nothing_of_a_new_server(site: DockerSite):
    """The first try to make containers here is refused half-way: of its two networks one is a stranger's already."""
    site.docker.run("network", "create", "--subnet", site.settings.mlflow_network, "aihub-stranger")
    try:
        code, why = failure(site.ask_and_wait(site.create(), "failed"))
        assert (code, "overlaps" in why) == ("network_unusable", True), why
        assert site.engine.containers(fresh=True) == ()
        site.assert_nothing_left()
    finally:
        site.docker.run("network", "rm", "aihub-stranger")
    site.make()
    site.call("experiments/create", {"name": "first"})


def test_an_image_that_is_missing_stops_nobody_who_runs_and_nothing_else_is_made(site: DockerSite):
    tag = OWN_IMAGE.format(version=MLFLOW_VERSION)
    with contextlib.ExitStack() as stack:
        site.docker.run("rmi", tag)
        stack.callback(site.docker.run, "tag", f"aihub-box:{MLFLOW_VERSION}", tag)
        assert "first" in site.experiments()
        assert failure(site.ask_and_wait(site.ask("delete"), "failed"))[0] == "image_missing"
        assert site.one().deleted_at is None
        site.ask_and_wait(site.ask("stop"))
        assert failure(site.ask_and_wait(site.ask("start"), "failed"))[0] == "version_missing"
        server = site.one()
        assert (server.status, server.reason["code"], site.containers()) == ("failed", "version_missing", {})
    site.ask_and_wait(site.ask("start"))
    assert "first" in site.experiments()


def test_a_stranger_on_the_port_is_said_and_the_server_starts_when_it_has_gone(site: DockerSite):
    site.ask_and_wait(site.ask("stop"))
    with socket.create_server(("127.0.0.1", site.one().port)):
        assert failure(site.ask_and_wait(site.ask("start"), "failed"))[0] == "port_taken"
        server = site.one()
        assert (server.status, server.reason["code"], site.containers()) == ("failed", "port_taken", {})
    until(site.is_back, 60)
    assert "first" in site.experiments()


def test_a_stranger_that_was_faster_after_a_boot(site: DockerSite):
    site.stop_service()
    site.daemon("stop")
    with socket.create_server(("127.0.0.1", site.one().port)):
        site.daemon("start")
        site.start_service()
        until(lambda: (site.one().reason or {}).get("code") == "port_taken", 60)
        assert site.one().status == "failed"
    until(site.is_back, 90)
    assert "first" in site.experiments()


def test_a_container_that_is_refused_half_way_takes_the_other_with_it(site: DockerSite):
    """Its name is a stranger's: the server's other container was made by then."""
    name = f"aihub-{install_id(site.settings.state_dir)}-{site.one().id}-gate"
    with stopped(site):
        stranger = site.docker.run("create", "--name", name, site.docker.base_image())
        code, why = failure(site.ask_and_wait(site.ask("start"), "failed"))
        assert (code, name in why) == ("box_failed_to_start", True), why
        assert (site.one().status, site.containers()) == ("failed", {})
        assert site.docker.run("inspect", name, "--format", "{{.Id}}") == stranger, "a stranger's is not touched"
        site.docker.run("rm", stranger)


def test_a_full_disk_is_said_corrupts_nothing_and_is_over_when_there_is_room(site: DockerSite):
    run = site.call("runs/create", {"experiment_id": "0", "start_time": 1})["run"]["info"]["run_id"]
    answered: list[int] = []
    refused = None
    fill(site.settings.servers_dir)
    try:
        for step in range(2000):
            metrics = [{"key": "n", "value": step, "timestamp": 1 + number, "step": step} for number in range(50)]
            answer = site.request("POST", "/api/2.0/mlflow/runs/log-batch", json={"run_id": run, "metrics": metrics})
            if answer.status_code != 200:
                refused = answer
                break
            answered.append(step)
        assert refused is not None
        assert (refused.status_code, "disk is full" in refused.json()["message"]) == (503, True), refused.text
        large = site.request("POST", "/api/2.0/mlflow/runs/log-batch", json={"run_id": run, "tags": [{"key": "t", "value": "x" * 100_000}]})
        assert (large.status_code, "disk is full" in large.json()["message"]) == (503, True), large.text
        assert "first" in site.experiments(), "what is there can be read"
        until(lambda: (site.one().reason or {}).get("code") == "disk_low", 30)
        assert site.one().status == "running"
        assert site.inside("mlflow", INTEGRITY).stdout.strip() == "ok"
        site.ask_and_wait(site.ask("stop"))
        fill(site.settings.servers_dir)  # also what its stop made room for
        assert failure(site.ask_and_wait(site.ask("start"), "failed"))[0] == "disk_full"
    finally:
        make_room(site.settings.servers_dir)
    site.ask_and_wait(site.ask("start"))
    until(lambda: site.one().reason is None and site.is_back(), 60)
    site.call("runs/log-metric", {"run_id": run, "key": "after", "value": 1, "timestamp": 1, "step": 0})
    assert site.inside("mlflow", INTEGRITY).stdout.strip() == "ok"
    found = site.look("metrics/get-history", run_id=run, metric_key="n", max_results=25000).get("metrics", [])
    assert [step for step in answered if sum(int(row["step"]) == step for row in found) != 50] == []
