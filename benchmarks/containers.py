"""Servers in containers: how long they take to be made, how much memory they need, and how soon a restarted service knows them again.

    .venv/bin/python -m benchmarks.containers --servers 10 [--json FILE]

Against the process runtime in the same run: the same service, object store and creates. Needs root and Docker (`bin/setup heavy`); the
image is built first. Memory is the proportional set size of everything that is there for the servers: their processes, their shims and
Docker's proxies apiece, and the daemons once.
"""

import argparse
import contextlib
import datetime as dt
import json
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import requests
from mlwf.client import Client, User
from mlwf.secret import Secret

from demo.ports import free_range
from tests.service.edge.live import Live, live_service, until
from tests.support.box import MLFLOW_VERSION, environment
from tests.support.docker import running_docker
from tests.support.docker_service import docker_service
from tests.support.s3 import S3Store, start_s3_store

GROUP, LOGIN = "root", ("alice", "correct horse battery staple")
DAEMONS, APIECE = ("dockerd", "containerd"), ("containerd-shim", "docker-proxy")
GB16 = 16 << 30


@contextlib.contextmanager
def on_docker(store: S3Store, count: int) -> Iterator[Live]:
    first = free_range(count + 2)
    with running_docker() as docker, docker_service(docker, store, port_first=first, port_last=first + count + 1, idle_seconds=1) as live:
        yield live


@contextlib.contextmanager
def on_processes(store: S3Store, count: int) -> Iterator[Live]:
    first, envs = free_range(count + 2), environment().parent
    choices = {"envs_dir": str(envs), "mlflow_versions": [MLFLOW_VERSION], "endpoint_url": store.endpoint_url, "idle_seconds": 1}
    with live_service(port_first=first, port_last=first + count + 1, **choices) as live:
        live.start()
        yield live


def create(client: Client, store: S3Store, names: list[str]) -> float:
    """Seconds until all of them are there; they are asked for at once."""
    bucket, owner = store.make_bucket(), store.owner
    keys = {"bucket": bucket, "access_key_id": owner.access_key, "secret_access_key": Secret(owner.secret_key)}
    began = time.perf_counter()
    asked = [client.create(group=GROUP, env_name=name, **keys) for name in names]  # type: ignore[arg-type]
    for each in asked:
        client.wait(each, timeout=600)
    return time.perf_counter() - began


def pss(pids: set[int]) -> int:
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))
    return total


def processes(before: set[int]) -> dict[str, set[int]]:
    """What is there now and was not before, by part; Docker's daemons in any case."""
    found: dict[str, set[int]] = {"servers": set(), "shims and proxies": set(), "daemons": set()}
    mine = {os.getpid(), *(each.pid for each in psutil.Process().children(recursive=True))}
    for process in psutil.process_iter(["name"]):
        name = process.info["name"]
        if any(name.startswith(each[:15]) for each in APIECE):
            found["shims and proxies"].add(process.pid)
        elif name in DAEMONS:
            found["daemons"].add(process.pid)
        elif process.pid not in before and process.pid not in mine:
            found["servers"].add(process.pid)
    return found


def memory(before: set[int], count: int) -> dict[str, float]:
    """MB for one server, and once."""
    sizes = {part: pss(pids) / 1e6 for part, pids in processes(before).items()}
    return {"a server": sizes["servers"] / count, "its shims and proxies": sizes["shims and proxies"] / count, "once": sizes["daemons"]}


def asleep(client: Client, names: list[str]) -> None:
    until(lambda: all(client.server(GROUP, name).status == "sleeping" for name in names), seconds=120, what="all servers asleep")


def awake(client: Client, names: list[str]) -> None:
    for name in names:
        url = client.server(GROUP, name).inside_url
        answer = requests.get(f"{url}api/2.0/mlflow/experiments/search", params={"max_results": 1}, auth=LOGIN, timeout=120)
        answer.raise_for_status()


def known_again(live: Live) -> float:
    """Seconds from the start of a killed service until it has looked at every server."""
    assert live.process is not None
    live.process.kill()
    live.process.wait()
    began, since = time.perf_counter(), dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
    live.start()
    until(lambda: _looked_at(live) > since, seconds=120, what="every server looked at")
    return time.perf_counter() - began


def _looked_at(live: Live) -> str:
    """The oldest of the servers' last looks, as the registry writes times."""
    with contextlib.closing(sqlite3.connect(live.state / "registry.db")) as registry:
        return str(registry.execute("SELECT min(coalesce(observed_at, '')) FROM servers WHERE deleted_at IS NULL").fetchone()[0])


def measure(live: Live, store: S3Store, count: int) -> dict[str, object]:
    before = {each.pid for each in psutil.process_iter()}
    names = [f"server-{number:03}" for number in range(count)]
    with live.client() as client:
        one = create(client, store, ["one"])
        client.wait(client.delete(GROUP, "one"), timeout=120)
        together = create(client, store, names)
        for name in names:
            client.wait(client.set_users(GROUP, name, [User(LOGIN[0], Secret(LOGIN[1]))]), timeout=60)
        asleep(client, names)
        sleeping = memory(before, count)
        known = known_again(live)
        awake(client, names)
        waking = memory(before, count)
    return {
        "one create, s": one,
        f"{count} creates at once, s": together,
        "known again, s": known,
        "asleep, MB": sleeping,
        "awake, MB": waking,
    }


def report(name: str, found: dict[str, object]) -> None:
    print(f"\n{name}")
    for what, value in found.items():
        if isinstance(value, dict):
            each = value["a server"] + value["its shims and proxies"]
            shown = ", ".join(f"{part} {size:.1f}" for part, size in value.items())
            print(f"  {what}: {shown}; in 16 GB: {int((GB16 / 1e6 - value['once']) / each)} servers")
        else:
            print(f"  {what}: {value:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--servers", type=int, default=10)
    parser.add_argument("--json", type=Path, help="write every number to this file")
    options = parser.parse_args()
    store, found = start_s3_store(), {}
    try:
        for name, runtime in {"docker": on_docker, "process": on_processes}.items():
            with runtime(store, options.servers) as live:
                found[name] = measure(live, store, options.servers)
            report(name, found[name])
    finally:
        store.remove()
    ratio = float(str(found["docker"]["one create, s"])) / float(str(found["process"]["one create, s"]))
    print(f"\none create: {ratio:.2f} of the process runtime's time")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
