"""What only containers have, over the API: a daemon that is slow, and sizes with jobs. Both runtimes' suite is test_live.py."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from mlwf.client import User
from mlwf.secret import Secret

from ood_app.app import create_app
from ood_app.settings import load
from tests.service.edge.live import Live, until
from tests.support.box import environment
from tests.support.docker import Docker
from tests.support.docker_proxy import DockerProxy, docker_proxy
from tests.support.docker_service import docker_service
from tests.support.genai import a_trace_and_judges
from tests.support.s3 import S3Store

pytestmark = [pytest.mark.heavy, pytest.mark.containers, pytest.mark.timeout(900)]
GROUP, LOGIN = "root", ("alice", "correct horse battery staple")
SLOW_SECONDS = 10.0
AT_ONCE_SECONDS = 5.0
"""The console's page and its state, also on a busy machine: less than one answer of that daemon."""


@pytest.fixture(scope="module")
def proxy(docker: Docker) -> Iterator[DockerProxy]:
    """Between the service and the daemon; it passes everything on at once unless a test says otherwise."""
    with docker_proxy(docker.home / "docker.sock") as running:
        yield running


@pytest.fixture(scope="module")
def live(docker: Docker, s3_store: S3Store, proxy: DockerProxy) -> Iterator[Live]:
    plain = {"memory": "1GiB", "cpus": 1, "pids": 256, "workers": 1}
    sizes = {"small": plain, "jobs": plain | {"genai_jobs": True}}
    with docker_service(docker, s3_store, docker_host=proxy.host, sizes=sizes, default_size="small") as running:
        yield running


@pytest.fixture(scope="module")
def url(live: Live, s3_store: S3Store) -> str:
    """Where the server `wine` is, which has one run."""
    owner = s3_store.owner
    keys = {"access_key_id": owner.access_key, "secret_access_key": Secret(owner.secret_key)}
    with live.client() as client:
        client.wait(client.create(group=GROUP, env_name="wine", bucket=s3_store.make_bucket(), **keys), timeout=180)  # type: ignore[arg-type]
        client.wait(client.set_users(GROUP, "wine", [User(LOGIN[0], Secret(LOGIN[1]))]), timeout=60)
        url = client.server(GROUP, "wine").inside_url or ""
    made = requests.post(f"{url}api/2.0/mlflow/runs/create", json={"experiment_id": "0"}, auth=LOGIN, timeout=60)
    assert made.status_code == 200, made.text
    return url


def test_the_service_is_killed_and_started_again(live: Live, url: str) -> None:
    """The servers answer meanwhile, and the next reconciler finds them as they are."""
    assert live.process is not None
    live.process.kill()
    live.process.wait()
    assert experiments(url) == 200
    live.start()
    with live.client() as client:
        until(lambda: client.server(GROUP, "wine").status in {"running", "sleeping"}, what="the server's status")
    assert experiments(url) == 200


def test_while_the_daemon_keeps_its_answers_the_service_and_the_servers_give_theirs(live: Live, proxy: DockerProxy, url: str) -> None:
    with live.client() as client:
        proxy.hold()
        try:
            asked = client.stop(GROUP, "wine")
            until(lambda: proxy.kept, what="the reconciler's question to the daemon")
            assert client.health().status == "ok"
            assert client.me().user == "root"
            assert [server.env_name for server in client.servers()] == ["wine"]
            assert client.server(GROUP, "wine").desired == "stopped"
            assert client.operation(asked.id).finished_at is None
            assert shown(live) == ["wine"]
            assert experiments(url) == 200
        finally:
            proxy.release()
        client.wait(asked, timeout=120)


def test_a_daemon_that_takes_ten_seconds_for_each_answer_is_only_slow(live: Live, proxy: DockerProxy, url: str) -> None:
    """The operation ends as it should, and nothing was asked for twice."""
    asked = len(proxy.asked)
    proxy.hold(SLOW_SECONDS)
    try:
        with live.client() as client:
            started = client.start(GROUP, "wine")
            until(lambda: proxy.kept, what="the reconciler's question to the daemon")
            began = time.monotonic()
            assert shown(live) == ["wine"]
            assert time.monotonic() - began < AT_ONCE_SECONDS, "who looks does not wait for the daemon"
            client.wait(started, timeout=400)
            status = client.server(GROUP, "wine").status
    finally:
        proxy.release()
    assert status in {"running", "sleeping"}
    assert runs(url) == 1
    changes = [each.partition("?")[0] for each in proxy.asked[asked:] if not each.startswith("GET ")]
    made = [each for each in changes if each == "POST /containers/create"]
    started = [each for each in changes if each.endswith("/start")]
    assert (len(made), len(started)) == (2, 2), changes


def test_a_size_with_jobs_runs_them_in_mlflows_container(live: Live, s3_store: S3Store, url: str) -> None:
    """A judge reads its trace from the object store and writes its word into the database; the size without jobs refuses them."""
    bucket, owner = s3_store.make_bucket(), s3_store.owner
    keys = {"access_key_id": owner.access_key, "secret_access_key": Secret(owner.secret_key)}
    with live.client() as client:
        client.wait(client.create(group=GROUP, env_name="jobs", bucket=bucket, size="jobs", **keys), timeout=180)  # type: ignore[arg-type]
        client.wait(client.set_users(GROUP, "jobs", [User(LOGIN[0], Secret(LOGIN[1]))]), timeout=60)
        with_jobs = client.server(GROUP, "jobs").inside_url or ""
    known = a_trace_and_judges(environment(), with_jobs, LOGIN, seconds=180)
    params = {"experiment_id": "0", "serialized_scorer": known["short"], "trace_ids": [known["trace"]]}
    job = {"job_name": "invoke_scorer", "params": params}
    assert requests.post(f"{url}ajax-api/3.0/jobs/", json=job, auth=LOGIN, timeout=60).status_code == 403
    asked = requests.post(f"{with_jobs}ajax-api/3.0/jobs/", json=job, auth=LOGIN, timeout=60)
    assert asked.status_code == 200, asked.text

    def ended() -> Any:
        answer = requests.get(f"{with_jobs}ajax-api/3.0/jobs/{asked.json()['job_id']}", auth=LOGIN, timeout=60).json()
        return answer["status"] in {"SUCCEEDED", "FAILED"} and answer

    found: Any = until(ended, seconds=180, what="the job's end")
    assert found["status"] == "SUCCEEDED", found
    trace = requests.get(f"{with_jobs}api/3.0/mlflow/traces/{known['trace']}", auth=LOGIN, timeout=60).json()["trace"]
    (word,) = trace["trace_info"]["assessments"]
    assert (word["assessment_name"], word["feedback"]["value"]) == ("short", "yes")


def shown(live: Live) -> list[str]:
    """The servers in the console, whose page comes besides."""
    with create_app(load({"MLWF_SERVICE": f"unix://{live.socket}", "SECRET_KEY_BASE": "k" * 64})).test_client() as console:
        assert console.get("/").status_code == 200
        return [each["env_name"] for each in console.get("/api/state").get_json()["servers"]]


def experiments(url: str) -> int:
    return requests.get(f"{url}api/2.0/mlflow/experiments/search", params={"max_results": 1}, auth=LOGIN, timeout=60).status_code


def runs(url: str) -> int:
    answer = requests.post(f"{url}api/2.0/mlflow/runs/search", json={"experiment_ids": ["0"]}, auth=LOGIN, timeout=60)
    assert answer.status_code == 200, answer.text
    return len(answer.json().get("runs", []))
