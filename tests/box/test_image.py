"""The image, and one box of it as two containers, by plain docker: what docs/reference/box.md says of them."""

import json
import os
import signal
import sqlite3
import subprocess
import threading
import tomllib
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.box import MLFLOW_VERSION, NOTICED, PASSWORD, ROOT, USER, until, users_document
from tests.support.docker import BUILD_BEHIND, Docker, DockerError
from tests.support.pod import G, M, Pod, running_pod
from tests.support.s3 import S3Store

pytestmark = [pytest.mark.box, pytest.mark.heavy, pytest.mark.containers, pytest.mark.timeout(1200)]
OF_THE_BUILD = "for each in uv pip pip3 gcc cc; do command -v $each; done; ls /uv 2>/dev/null; true"
COMPILED = """
from importlib.util import cache_from_source, find_spec
from pathlib import Path
import boto3, psycopg2
sources = sorted(Path(find_spec("mlflow").origin).parent.rglob("*.py"))
print(len(sources), *(each for each in sources if not Path(cache_from_source(each)).is_file()), sep="\\n")
"""
# Takes more memory than the container has left, and lets go of it.
HOG = "held = []\nfor _ in range(400): held.append(bytearray(1 << 20))"


@pytest.fixture(scope="module")
def image(docker: Docker) -> str:
    return docker.box_image(MLFLOW_VERSION)


@pytest.fixture(scope="module")
def pod(docker: Docker, image: str, s3_store: S3Store, store_settings: dict[str, Any]) -> Iterator[Pod]:
    with running_pod(docker, image, s3_store, store_settings) as pod:
        yield pod


def revision() -> str:
    """Of this project, as `tracking_server/build-image` asks git for it."""
    argv = ["git", "-C", ROOT, "describe", "--always", "--dirty", "--abbrev=40", "--exclude", "*"]
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def status_of(pid: int) -> dict[str, str]:
    """Of /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_the_image_says_what_is_in_it_and_holds_nothing_of_the_build(docker: Docker, image: str) -> None:
    about = json.loads(docker.run("image", "inspect", image))[0]
    note = json.loads(docker.run("run", "--rm", "--network", "none", "--entrypoint", "cat", image, "/opt/aihub/env/version.json"))
    labels = about["Config"]["Labels"]
    assert labels["org.aihub.mlflow-version"] == note["mlflow_version"] == MLFLOW_VERSION
    assert labels["org.aihub.schema-revision"] == note["schema_revision"]
    assert labels["org.aihub.lock-sha256"] == note["lock_sha256"]
    assert labels["org.opencontainers.image.title"] == "MLflow tracking server"
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.opencontainers.image.version"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    if not os.environ.get("AIHUB_IMAGE_AS_IS"):  # one of before may be of another revision
        assert labels["org.opencontainers.image.revision"] == revision()
    assert about["Config"]["User"] == "65534:65534"
    assert about["Size"] < 1000 << 20
    assert {name.partition("=")[0] for name in about["Config"]["Env"]} == {"PATH", "LANG", "DEBIAN_FRONTEND"}
    assert docker.run("run", "--rm", "--entrypoint", "sh", image, "-c", OF_THE_BUILD) == ""
    with pytest.raises(DockerError, match="usage: gate"):
        docker.run("run", "--rm", image)


def test_its_environment_has_the_drivers_and_is_compiled(docker: Docker, image: str) -> None:
    """As nobody can write into it, what is not compiled would be compiled anew at each wake."""
    seen = docker.run("run", "--rm", "--network", "none", "--entrypoint", "/opt/aihub/env/bin/python", image, "-I", "-c", COMPILED)
    sources, *without = seen.splitlines()
    assert int(sources) > 500, "there is a package to look at"
    assert without == []


def test_the_proxy_and_the_index_of_the_build_stay_out_of_the_image(docker: Docker, image: str) -> None:
    told = docker.run("history", "--no-trunc", image) + docker.run("image", "inspect", image)
    assert "apt-get" in told, "what ran is in it"
    values = [value for name, value in {**BUILD_BEHIND, **os.environ}.items() if name in BUILD_BEHIND and name != "no_proxy" and value]
    assert [word for word in ("_proxy", "_PROXY", "INDEX_URL", *values) if word in told] == []


def test_two_user_ids_without_any_right_and_nothing_secret_to_see(pod: Pod, s3_store: S3Store) -> None:
    pod.box.wait_state("awake", "asleep")
    assert pod.box.request("GET", "/api/2.0/mlflow/experiments/search?max_results=1").status_code == 200
    for name, uid in ((pod.gate, G), (pod.mlflow, M)):
        for pid in pod.processes(name):
            status = status_of(pid)
            assert set(status["Uid"].split()) == set(status["Gid"].split()) == {str(uid)}
            assert {status[each] for each in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
            assert status["NoNewPrivs"] == "1"
            assert status["Seccomp"] == "2"
    keys = json.loads((pod.box.home / "config" / "keys.json").read_text()).values()
    secrets = [s3_store.owner.secret_key, PASSWORD, *keys]
    told = [pod.docker.run("inspect", name) + pod.docker.run("logs", name) for name in (pod.gate, pod.mlflow)]
    told += [log.read_text() for log in (pod.box.home / "log").iterdir()]
    for name in (pod.gate, pod.mlflow):
        told += [Path(f"/proc/{pid}/environ").read_text() + Path(f"/proc/{pid}/cmdline").read_text() for pid in pod.processes(name)]
    assert [secret for secret in secrets for text in told if secret in text] == []


def test_mlflows_user_sees_no_file_that_is_not_its_own(pod: Pod) -> None:
    look = "import os; print(sorted(n for n in os.listdir('/box') if os.listdir('/box/' + n)))"
    seen = pod.docker.run("exec", pod.mlflow, "/opt/aihub/env/bin/python", "-c", look)
    assert seen in ("['data', 'spawn', 'tmp']", "['data', 'spawn']")
    with pytest.raises(DockerError, match="Read-only file system"):
        pod.docker.run("exec", pod.mlflow, "touch", "/opt/aihub/x")
    with pytest.raises(DockerError, match="Read-only file system"):
        pod.docker.run("exec", pod.gate, "touch", "/box/config/x")


def test_artifacts_go_through_it_to_the_object_store(pod: Pod) -> None:
    run = pod.box.api("POST", "runs/create", json={"experiment_id": "0"})["run"]["info"]["run_id"]
    path, body = f"/api/2.0/mlflow-artifacts/artifacts/0/{run}/artifacts/big.bin", os.urandom(20 << 20)
    assert pod.box.request("PUT", path, data=body).status_code == 200
    assert pod.box.request("GET", path).content == body


def test_it_sleeps_and_wakes(pod: Pod) -> None:
    pod.box.wait_state("asleep")
    assert [arguments for arguments in pod.processes(pod.mlflow).values() if "mlflow_process" in arguments] == []
    assert pod.box.api("GET", "experiments/search", params={"max_results": 1})["experiments"]


def test_users_replaced_by_rename_are_seen_inside(pod: Pod) -> None:
    config = pod.box.home / "config"
    part = config / "users.json.part"
    part.touch(mode=0o600)
    part.write_text(users_document({USER: PASSWORD, "bob": "another"}))
    os.chown(part, G, G)
    part.replace(config / "users.json")
    until(
        lambda: pod.box.request("GET", "/-/info", auth=("bob", "another")).status_code == 200, seconds=NOTICED, what="the new user let in"
    )


def test_killed_by_the_kernel_while_it_writes_it_comes_again_and_lost_nothing_that_it_answered(pod: Pod) -> None:
    run = pod.box.api("POST", "runs/create", json={"experiment_id": "0"})["run"]["info"]["run_id"]
    enough, answered = threading.Event(), []

    def write() -> None:
        step = 0
        while not enough.is_set():
            step += 1
            metric = {"run_id": run, "key": "m", "value": step, "timestamp": 1, "step": step}
            with suppress(requests.RequestException):
                if pod.box.request("POST", "/api/2.0/mlflow/runs/log-metric", json=metric).status_code == 200:
                    answered.append(step)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        until(lambda: len(answered) > 10, what="some metrics")
        before, killed = pod.mlflow_pid(), len(answered)
        # The kernel would choose between the two by their size; here it is told.
        Path(f"/proc/{before}/oom_score_adj").write_text("1000")
        with suppress(DockerError):  # the hog may be killed as well, when the next MLflow is there already
            pod.docker.run("exec", pod.mlflow, "/opt/aihub/env/bin/python", "-c", HOG)
        until(lambda: before not in pod.processes(pod.mlflow), what="the end of MLflow")
        until(lambda: len(answered) > killed + 20, what="metrics of the next one")
    finally:
        enough.set()
        writer.join()
    assert "MLflow ended with status -9" in (pod.box.home / "log" / "guard.log").read_text()
    with closing(sqlite3.connect(pod.box.home / "data" / "mlflow.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        steps = {step for (step,) in database.execute("select step from metrics where run_uuid = ?", (run,))}
    assert set(answered) <= steps
    spawner = next(pid for pid, arguments in pod.processes(pod.mlflow).items() if "spawner.py" in arguments)
    path = "/api/2.0/mlflow/runs/get"
    assert pod.box.request("GET", path, params={"run_id": run}).status_code == 200  # so that it is awake
    os.kill(pod.mlflow_pid(), signal.SIGKILL)
    # 503 for a request that the dying one had taken
    until(lambda: pod.box.request("GET", path, params={"run_id": run}).status_code == 200, what="the next one")
    assert spawner in pod.processes(pod.mlflow)


@pytest.mark.parametrize("part", ["gate", "mlflow"])
def test_each_container_may_be_restarted_alone(pod: Pod, part: str) -> None:
    pod.docker.run("restart", "--time", "20", getattr(pod, part))
    until(pod.answers, what="the gate's answer")
    assert pod.box.api("GET", "experiments/search", params={"max_results": 1})["experiments"]


def test_both_killed_come_again_by_themselves_in_any_order(pod: Pod) -> None:
    """As after a boot of the host; docker's own restart policy starts them, and nobody else."""
    for name in (pod.gate, pod.mlflow):
        first = int(pod.docker.run("inspect", "--format", "{{.State.Pid}}", name))
        os.kill(first, signal.SIGKILL)
        until(lambda name=name, first=first: pod.docker.run("inspect", "-f", "{{.State.Pid}}", name) not in ("0", str(first)), what=name)
    until(pod.answers, what="the gate's answer")
    assert pod.box.api("GET", "experiments/search", params={"max_results": 1})["experiments"]


def test_stopped_by_its_signal_the_gate_ends_in_order(pod: Pod) -> None:
    pod.docker.run("stop", "--time", "30", pod.gate)
    assert pod.docker.run("inspect", "--format", "{{.State.ExitCode}}", pod.gate) == "0"
    assert [arguments for arguments in pod.processes(pod.mlflow).values() if "mlflow_process" in arguments] == []
    pod.docker.run("stop", "--time", "10", pod.mlflow)
    assert pod.docker.run("inspect", "--format", "{{.State.ExitCode}}", pod.mlflow) == "0"
