"""Docker of another version in the place of the one that started the servers, as a host's upgrade puts it there under `live-restore`."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
import requests

from tests.service.engine.docker_site import DockerSite, docker_site, state_folder
from tests.service.engine.support import until
from tests.support.box import MLFLOW_VERSION
from tests.support.docker import Docker, in_place_of, newer_programs

pytestmark = [pytest.mark.heavy, pytest.mark.containers, pytest.mark.timeout(600)]
OPTIONS = ("--live-restore", "--userland-proxy=false")
GAP_SECONDS = 5.0
"""Of any version, while it writes its rules for addresses anew: docs/explanation/docker.md."""


def server_version(docker: Docker) -> tuple[int, ...]:
    word = docker.run("version", "--format", "{{.Server.Version}}")
    return tuple(int(part) for part in word.partition("+")[0].split("."))


class Client:
    """Asks the server all the time, each time by a new connection; one that is refused is tried again, as MLflow's own client does."""

    def __init__(self, site: DockerSite) -> None:
        self._site = site
        self._ended = threading.Event()
        self._answers = threading.Semaphore(0)
        self.failures: list[str] = []
        self.refused = 0.0
        """The longest time, in seconds, in which all were."""

    def run(self) -> None:
        since = None
        while not self._ended.is_set():
            asked = time.monotonic()
            try:
                answer = self._site.request("GET", "/api/2.0/mlflow/experiments/get", params={"experiment_id": "0"})
            except requests.ConnectionError as error:
                if "refused" not in str(error):
                    self.failures.append(str(error))
                since = since or asked
                self.refused = max(self.refused, time.monotonic() - since)
                continue
            except requests.RequestException as error:
                self.failures.append(str(error))
            else:
                self.failures += [answer.text] if answer.status_code != 200 else []
            since = None
            self._answers.release()

    def assert_it_is_answered(self, *, refused: float = 0.0) -> None:
        """Twice from now on, since the first may have begun before; and at most that long was it refused since it was asked here last."""
        while self._answers.acquire(blocking=False):
            pass
        for _ in range(2):
            assert self._answers.acquire(timeout=60)
        assert self.failures == []
        assert self.refused <= refused
        self.refused = 0.0

    def end(self) -> None:
        self._ended.set()


@contextlib.contextmanager
def asking(site: DockerSite) -> Iterator[Client]:
    client = Client(site)
    thread = threading.Thread(target=client.run)
    thread.start()
    try:
        yield client
    finally:
        client.end()
        thread.join(90)


def test_a_newer_daemon_takes_over_the_servers_that_an_older_one_started(docker: Docker):
    """It also refuses the older one's API, as Docker 29 does of itself: the service, which runs on, has to notice."""
    newer, image = newer_programs(), docker.box_image(MLFLOW_VERSION)
    with in_place_of(docker, image) as own, state_folder() as home, docker_site(own, home) as site:
        before = server_version(own)
        site.daemon("stop")
        site.daemon("start", *OPTIONS)
        site.make()
        site.call("experiments/create", {"name": "before"})
        since = site.started_at()
        with asking(site) as client:
            client.assert_it_is_answered()
            site.daemon("stop")
            client.assert_it_is_answered()
            site.docker = replace(own, programs=newer)
            site.daemon("start", *OPTIONS, DOCKER_MIN_API_VERSION="1.44")
            assert server_version(site.docker) > before
            client.assert_it_is_answered(refused=GAP_SECONDS)
            until(site.is_back, 60)
            assert site.started_at() == since, "the containers never ended"
            client.assert_it_is_answered()
        site.ask_and_wait(site.ask("stop"))
        assert site.containers() == {}
        site.ask_and_wait(site.ask("start"))
        assert "before" in site.experiments()
        site.ask_and_wait(site.ask("delete"))
        assert site.engine.containers(fresh=True) == ()
        assert list(site.boxes.ids()) == []
