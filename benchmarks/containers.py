"""Servers in containers: how long they take to be made, how much memory they need, and how soon a restarted service knows them again.

    .venv/bin/python -m benchmarks.containers --servers 50 [--rounds 5] [--json FILE]

On both runtimes: single creates, one after the other, and ten at once. On Docker besides: so many (`--servers`) asked for in one moment,
every operation of which must succeed; their memory when all sleep and when ten of them are awake; and the time from a killed service's
start until it has looked at all of them. A create's time is the operation's own, from the request to its end. How much of one processor
the service and the daemons take while all sleep is told by their own processor time over a minute.

Memory is the proportional set size, by part: the servers' own processes, Docker's shims, its proxies for ports (none with
`userland-proxy: false`) and its daemons. The kernel's own is not in it. Needs root and Docker (`bin/setup heavy`). With 50 servers about
ten minutes on two cores, after the image's build.
"""

import argparse
import contextlib
import datetime as dt
import json
import os
import platform
import sqlite3
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import psutil
import requests
from mlwf.client import Client, User
from mlwf.secret import Secret
from mlwf.wire.service_errors import OperationFailedError

from demo.ports import free_range
from tests.service.edge.live import Live, until
from tests.support.box import MLFLOW_VERSION
from tests.support.docker import Docker, running_docker
from tests.support.runtimes import server_processes, service_on
from tests.support.s3 import S3Store, start_s3_store

GROUP, LOGIN = "root", ("alice", "correct horse battery staple")
TOGETHER, AWAKE = 10, 10
IDLE_SECONDS = 5
QUIET_SECONDS = 60.0
WAIT = 3600.0  # several hundred creates on two cores
SERVICE = {"idle_seconds": IDLE_SECONDS, "observe_seconds": 5}  # how often it looks: the settings' own
NETWORKS = {"gate_network": "10.214.8.0/22", "mlflow_network": "10.214.12.0/22"}  # a thousand servers' addresses, as in the settings' own
GB16 = 16 << 30
Parts = dict[str, set[int]]


@dataclass
class Bench:
    """A running service on one runtime. `parts`: the processes that are there for its servers, by part."""

    live: Live
    store: S3Store
    parts: Callable[[], Parts]

    def create(self, client: Client, names: list[str]) -> float:
        """Seconds from the first request to the last one's end; they are asked for at once. Error: whichever of them failed."""
        bucket, owner = self.store.make_bucket(), self.store.owner
        keys = {"bucket": bucket, "access_key_id": owner.access_key, "secret_access_key": Secret(owner.secret_key)}
        asked = [client.create(group=GROUP, env_name=name, **keys) for name in names]  # type: ignore[arg-type]
        try:
            done = [client.wait(each, timeout=WAIT) for each in asked]
        except OperationFailedError as error:
            raise RuntimeError(f"{error.operation.env_name}: {error.problem}") from error  # with the box's last lines
        began, ended = min(each.created_at or "" for each in done), max(each.finished_at or "" for each in done)
        return (dt.datetime.fromisoformat(ended) - dt.datetime.fromisoformat(began)).total_seconds()

    def delete(self, client: Client, names: list[str]) -> None:
        for asked in [client.delete(GROUP, name) for name in names]:
            client.wait(asked, timeout=WAIT)

    def memory(self) -> dict[str, float]:
        """MB by part."""
        return {part: sum(map(_pss, pids)) / 1e6 for part, pids in self.parts().items()}


@contextlib.contextmanager
def on_docker(docker: Docker, store: S3Store, ports: int) -> Iterator[Bench]:
    first = free_range(ports)
    with service_on(docker, store, port_first=first, port_last=first + ports - 1, **SERVICE, **NETWORKS) as live:
        yield Bench(live, store, lambda: _of_containers(docker))


@contextlib.contextmanager
def on_processes(store: S3Store, ports: int) -> Iterator[Bench]:
    first = free_range(ports)
    with service_on(None, store, port_first=first, port_last=first + ports - 1, **SERVICE) as live:
        yield Bench(live, store, lambda: {"servers": {process.pid for process in server_processes(None, live.state)}})


def _of_containers(docker: Docker) -> Parts:
    """By the daemon's own process tree: its containers' shims have left it, and know it by its containerd's socket."""
    daemon = psutil.Process(int((docker.home / "docker.pid").read_text()))
    below = {child.pid: child.name() for child in daemon.children(recursive=True)}
    proxies = {pid for pid, name in below.items() if name == "docker-proxy"}
    mark = str(docker.home / "exec" / "containerd" / "containerd.sock")
    shims = [each for each in psutil.process_iter(["cmdline"]) if _is_shim(each.info["cmdline"] or [""], mark)]
    servers = {child.pid for shim in shims for child in shim.children(recursive=True)}
    return {"servers": servers, "shims": {shim.pid for shim in shims}, "proxies": proxies, "daemons": {daemon.pid, *below} - proxies}


def _is_shim(argv: list[str], mark: str) -> bool:
    return Path(argv[0]).name.startswith("containerd-shim") and mark in argv


def _pss(pid: int) -> int:
    """Bytes; 0 for one that has just ended."""
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))
    return 0


def asleep(client: Client) -> None:
    until(lambda: {each.status for each in client.servers()} == {"sleeping"}, seconds=WAIT, what="all servers asleep")


@contextlib.contextmanager
def awake(client: Client, names: list[str]) -> Iterator[None]:
    """These are awake, and asked again and again so that they stay it."""
    for name in names:
        client.wait(client.set_users(GROUP, name, [User(LOGIN[0], Secret(LOGIN[1]))]), timeout=WAIT)
    urls = [client.server(GROUP, name).inside_url for name in names]
    answered, end = threading.Semaphore(0), threading.Event()

    def use(url: str | None) -> None:
        first = True
        while first or not end.wait(1):
            found = requests.get(f"{url}api/2.0/mlflow/experiments/search", params={"max_results": 1}, auth=LOGIN, timeout=300)
            found.raise_for_status()
            if first:
                answered.release()
            first = False

    with ThreadPoolExecutor(len(urls)) as pool:
        using = [pool.submit(use, url) for url in urls]
        try:
            for _ in urls:
                until(lambda: answered.acquire(blocking=False) or any(each.done() for each in using), seconds=WAIT, what="an answer")
            yield
        finally:
            end.set()
        for each in using:
            each.result()


def processor_shares(bench: Bench) -> dict[str, float]:
    """By part, the service among them, over a quiet minute."""
    assert bench.live.process is not None
    service = psutil.Process(bench.live.process.pid)
    parts = {"service": {service.pid, *(child.pid for child in service.children(recursive=True))}} | bench.parts()
    before = {part: _processor_seconds(pids) for part, pids in parts.items()}
    time.sleep(QUIET_SECONDS)
    return {part: 100 * (_processor_seconds(pids) - before[part]) / QUIET_SECONDS for part, pids in parts.items()}


def _processor_seconds(pids: set[int]) -> float:
    """Of those that are still there."""
    total = 0.0
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            used = psutil.Process(pid).cpu_times()
            total += used.user + used.system
    return total


def known_again(live: Live) -> float:
    """Seconds from the start of a killed service until it has looked at every server. When it looked last is forgotten before."""
    assert live.process is not None
    live.process.kill()
    live.process.wait()
    with contextlib.closing(sqlite3.connect(live.state / "registry.db", timeout=30)) as registry, registry:
        registry.execute("UPDATE servers SET observed_at = NULL")
    began = time.perf_counter()
    live.start()
    until(lambda: not _unknown(live), seconds=300, what="every server looked at")
    return time.perf_counter() - began


def _unknown(live: Live) -> int:
    with contextlib.closing(sqlite3.connect(live.state / "registry.db", timeout=30)) as registry:
        return int(registry.execute("SELECT count(*) FROM servers WHERE deleted_at IS NULL AND observed_at IS NULL").fetchone()[0])


def creates(bench: Bench, client: Client, rounds: int) -> dict[str, object]:
    """Single ones, and ten at once; nothing of them runs afterwards."""
    names = [f"one-{number}" for number in range(rounds)]
    single = [bench.create(client, [name]) for name in names]
    bench.delete(client, names)
    names = [f"ten-{number}" for number in range(TOGETHER)]
    together = bench.create(client, names)
    bench.delete(client, names)
    return {"one create, s": single, f"{TOGETHER} creates at once, s": together}


def many(bench: Bench, client: Client, count: int, rounds: int) -> dict[str, object]:
    names = [f"server-{number:03}" for number in range(count)]
    found: dict[str, object] = {f"{count} creates at once, all succeeded, s": bench.create(client, names)}
    began = time.perf_counter()
    asleep(client)
    found["until all sleep, s"] = time.perf_counter() - began
    found["processor while all sleep, % of one"] = processor_shares(bench)
    sleeping = bench.memory()
    found["asleep, MB"] = sleeping
    found["known again, s"] = [known_again(bench.live) for _ in range(rounds)]
    some = names[:AWAKE]
    with awake(client, some):
        found[f"{len(some)} of them awake, MB"] = waking = bench.memory()
    return found | _in_16_gb(sleeping, waking, count, len(some))


def _in_16_gb(sleeping: dict[str, float], waking: dict[str, float], count: int, some: int) -> dict[str, object]:
    """How many fit, with everything counted; the daemons' memory grows with their containers, so it is shared out."""
    apiece = sum(sleeping.values()) / count
    more = (sum(waking.values()) - sum(sleeping.values())) / some
    proxy = sleeping.get("proxies", 0) / count
    room = GB16 / 1e6
    return {
        "one asleep, MB": apiece,
        "one asleep without its proxy, MB": apiece - proxy,
        "one awake, MB": apiece + more,
        "asleep in 16 GB": int(room / apiece),
        "asleep in 16 GB without proxies": int(room / (apiece - proxy)),
        "awake in 16 GB": int(room / (apiece + more)),
    }


def machine(docker: str) -> dict[str, object]:
    memory = psutil.virtual_memory().total / 1e9
    return {
        "when": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{os.cpu_count()} cores, {memory:.0f} GB, Linux {platform.release()}",
        "versions": f"Docker {docker}, MLflow {MLFLOW_VERSION}, Python {platform.python_version()}, docker SDK {version('docker')}",
    }


def show(title: str, found: dict[str, object]) -> None:
    print(f"\n{title}")
    for what, value in found.items():
        if isinstance(value, dict):
            text = ", ".join(f"{part} {size:.1f}" for part, size in value.items())
        elif isinstance(value, list):
            text = f"{statistics.median(value):.2f} [{min(value):.2f}-{max(value):.2f}]"
        else:
            text = f"{value:.2f}" if isinstance(value, float) else str(value)
        print(f"  {what}: {text}", flush=True)


def measure(docker: Docker, store: S3Store, count: int, rounds: int) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = {}
    with on_processes(store, rounds + TOGETHER) as bench, bench.live.client() as client:
        found["process"] = creates(bench, client, rounds)
        show("process", found["process"])
    with on_docker(docker, store, rounds + TOGETHER + count) as bench, bench.live.client() as client:
        found["docker"] = creates(bench, client, rounds)
        show("docker", found["docker"])
        found["many"] = many(bench, client, count, rounds)
        show(f"docker, {count} servers", found["many"])
    one, ten = (_ratio(found, name) for name in ("one create, s", f"{TOGETHER} creates at once, s"))
    found["docker against process"] = {"one create": one, f"{TOGETHER} at once": ten}
    show("docker against process", found["docker against process"])
    return found


def _ratio(found: dict[str, dict[str, object]], name: str) -> float:
    ours, theirs = (found[runtime][name] for runtime in ("docker", "process"))
    return _middle(ours) / _middle(theirs)


def _middle(value: object) -> float:
    return float(statistics.median(value)) if isinstance(value, list) else float(str(value))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--servers", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write every number to this file")
    options = parser.parse_args()
    with running_docker() as docker:
        about = machine(docker.run("version", "--format", "{{.Server.Version}}"))
        show("measured on", about)
        store = start_s3_store()
        try:
            found = {"measured on": about} | measure(docker, store, options.servers, options.rounds)
        finally:
            store.remove()
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
