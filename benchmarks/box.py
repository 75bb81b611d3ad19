"""What the box costs and saves, against MLflow as it comes: `python -m benchmarks.box [--rounds N] [--runtime docker] [--json FILE]`.

Every round measures each thing once, ours and MLflow's own in turn, so that a busy moment of the machine hits both. Printed are the median
of the rounds and the spread. Needs nginx, and the environment of `make envs`.

With `--runtime docker` the box is a server's two containers, made by a service: calls and the wake (its start and its memory are
`benchmarks.service` and `benchmarks.containers`). As docs/howto/docker.md has it: a daemon without port proxies, servers on an address of
the host that is not its loopback. Needs root and Docker (`bin/setup heavy`).
"""

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil
import requests
from mlwf.client import User
from mlwf.secret import Secret

from benchmarks.servers import BCRYPT_COST, SEARCH, Client, alone, default_server, new_box, pss_megabytes, scratch
from demo.containers import BRIDGE, address_of
from tests.support.box import MLFLOW_VERSION, environment, until
from tests.support.docker import own_docker
from tests.support.runtimes import service_on
from tests.support.s3 import start_s3_store

REQUESTS = 150
IDLE_BEFORE_MEMORY = 12.0


@dataclass
class Measured:
    """One number a round, by name."""

    rounds: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        self.rounds.setdefault(name, []).append(value)

    def median(self, name: str) -> float:
        return statistics.median(self.rounds[name])

    def those_of(self, *limits: tuple[str, float]) -> list[tuple[str, float]]:
        """The limits of what was measured."""
        return [each for each in limits if each[0] in self.rounds]

    def ratio(self, above: str, below: str) -> list[float]:
        """Round by round."""
        return [high / low for high, low in zip(self.rounds[above], self.rounds[below], strict=True)]


def measure_default(place: Path, measured: Measured) -> None:
    with scratch() as folder:
        began = time.perf_counter()
        with default_server(place, folder) as (pid, client):
            client.first_answer()
            measured.add("mlflow server: cold start, s", time.perf_counter() - began)
            time.sleep(IDLE_BEFORE_MEMORY)  # the same pause before each memory reading
            measured.add("mlflow server: idle, MB PSS", pss_megabytes(pid))


def measure_box(place: Path, measured: Measured) -> None:
    with new_box(place, idle_seconds=IDLE_BEFORE_MEMORY + 3) as box:
        client = Client(box.port, "/mlflow", box.auth)
        began = time.perf_counter()
        box.spawn()
        client.first_answer()
        measured.add("box: start to first answer, s", time.perf_counter() - began)
        assert box.process is not None
        time.sleep(IDLE_BEFORE_MEMORY)
        measured.add("box: awake and idle, MB PSS", pss_megabytes(box.process.pid))
        box.wait_state("asleep")
        measured.add("box: asleep, MB PSS", pss_megabytes(box.process.pid))
        client = Client(box.port, "/mlflow", box.auth)
        measured.add("box: wake to first answer, s", client.seconds(*SEARCH))


def logging_calls(client: Client) -> dict[str, Callable[[int], float]]:
    """Each takes a step's number and gives the seconds of one call."""
    client.close()
    made = client.post("/api/2.0/mlflow/runs/create", {"experiment_id": "0"})
    run_id = made["run"]["info"]["run_id"]  # type: ignore[index]

    def metric(step: int) -> dict[str, object]:
        return {"key": "m", "value": step / 7, "timestamp": 1_700_000_000_000 + step, "step": step}

    def batch(step: int) -> dict[str, object]:
        return {"run_id": run_id, "metrics": [{**metric(step), "key": f"m{number}"} for number in range(10)]}

    return {
        "log_metric": lambda step: client.seconds("/api/2.0/mlflow/runs/log-metric", {"run_id": run_id, **metric(step)}),
        "log_batch": lambda step: client.seconds("/api/2.0/mlflow/runs/log-batch", batch(step)),
    }


def measure_logging(place: Path, measured: Measured) -> None:
    """One call here, one there, and so on: the medians of the round.

    `socket` is the box's own MLflow, asked on its socket past nginx and the guard: the difference is what those two cost, and nothing else.
    `alone` is MLflow by itself on such a socket, as uvicorn starts it.
    """
    with scratch() as folder, alone(place, folder) as bare, new_box(place, idle_seconds=0) as box:
        box.start()
        box.wait_state("awake")
        compare_calls(measured, bare, Client(box.port, "/mlflow", box.auth), box.home)


def compare_calls(measured: Measured, bare: Client, through: Client, home: Path) -> None:
    """`through`: the box, awake, whose folder is `home`."""
    past = Client(through.port, "/mlflow", unix=home / "run" / "mlflow.sock", host=through.host)
    sides = {side: logging_calls(client) for side, client in {"alone": bare, "box": through, "socket": past}.items()}
    for call in ("log_metric", "log_batch"):
        times: dict[str, list[float]] = {side: [] for side in sides}
        for step in range(REQUESTS + 10):
            # Who comes after a call of the same process finds its caches warm: nobody may always be that one.
            for side in random.Random(step).sample(sorted(sides), len(sides)):  # noqa: S311
                times[side].append(sides[side][call](step))
        for side, values in times.items():
            measured.add(f"{side}: {call}, ms", statistics.median(values[10:]) * 1000)


def measure_containers(place: Path, measured: Measured, *, client: Client, home: Path) -> None:
    """`client`: of the box whose folder is `home`."""
    client.first_answer()
    with scratch() as folder, alone(place, folder) as bare:
        compare_calls(measured, bare, client, home)
    health = f"http://{client.host}:{client.port}/mlflow/-/health"
    until(lambda: requests.get(health, timeout=60).json()["state"] == "asleep", what="sleep")
    client.close()
    measured.add("box: wake to first answer, s", client.seconds(*SEARCH))


@contextmanager
def parts_of(runtime: str) -> Iterator[list[Callable[[Path, Measured], None]]]:
    """What one round measures."""
    if runtime == "process":
        yield [measure_default, measure_box, measure_logging]
        return
    store, login = start_s3_store(), ("alice", "a right password")
    try:
        os.environ["DOCKERD_OPTIONS"] = "--userland-proxy=false"
        with ExitStack() as stack:
            docker = stack.enter_context(own_docker())
            address = address_of(docker.run(*BRIDGE))
            live = stack.enter_context(service_on(docker, store, idle_seconds=5, listen_address=address, inside_host=address))
            service = stack.enter_context(live.client())
            keys = {"access_key_id": store.owner.access_key, "secret_access_key": Secret(store.owner.secret_key)}
            service.wait(service.create(group="root", env_name="box", bucket=store.make_bucket(), **keys))  # type: ignore[arg-type]
            service.wait(service.set_users("root", "box", [User(login[0], Secret(login[1]))]))
            server = service.server("root", "box")
            box = {"client": Client(server.port, "/mlflow", login, host=address), "home": live.state / "servers" / server.id}
            yield [measure_default, partial(measure_containers, **box)]
    finally:
        store.remove()


def report(measured: Measured, rounds: int) -> dict[str, object]:
    targets: dict[str, tuple[bool, str]] = {}
    for call in ("log_metric", "log_batch"):
        for side in ("socket", "alone"):
            ratio = statistics.median(measured.ratio(f"{side}: {call}, ms", f"box: {call}, ms"))
            pairs = zip(measured.rounds[f"box: {call}, ms"], measured.rounds[f"{side}: {call}, ms"], strict=True)
            added = statistics.median(box - other for box, other in pairs)
            targets[f"{call}: {side}/box >= 0.95, or < 0.5 ms added"] = (ratio >= 0.95 or added < 0.5, f"{ratio:.3f}, {added:+.2f} ms")
    cold = "mlflow server: cold start, s"
    for name, limit in measured.those_of(("box: start to first answer, s", 0.5), ("box: wake to first answer, s", 0.25)):
        part = statistics.median(measured.ratio(name, cold))
        targets[f"{name}: at most {limit} of `mlflow server`"] = (part <= limit, f"{part:.3f}")
    for name, limit in measured.those_of(("box: asleep, MB PSS", 30), ("box: awake and idle, MB PSS", 300)):
        targets[f"{name}: at most {limit}"] = (measured.median(name) <= limit, f"{measured.median(name):.1f}")
    nginx = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=True).stderr.strip().rpartition("/")[2]
    machine = {
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "mlflow": MLFLOW_VERSION,
        "nginx": nginx,
    }
    return {
        "machine": {**machine, "load": os.getloadavg()[0], "memory_gb": round(psutil.virtual_memory().total / 1024**3)},
        "rounds": rounds,
        "bcrypt_cost": BCRYPT_COST,
        "measured": measured.rounds,
        "targets": {name: {"met": met, "value": value} for name, (met, value) in targets.items()},
    }


def show(document: dict[str, object], measured: Measured) -> None:
    out = sys.stdout.write
    out(f"{document['machine']}, bcrypt cost {BCRYPT_COST}, {document['rounds']} rounds\n")
    for name, values in measured.rounds.items():
        out(f"{name:38} {statistics.median(values):9.2f}  [{min(values):.2f} .. {max(values):.2f}]\n")
    for name, target in document["targets"].items():  # type: ignore[attr-defined]
        out(f"{'met    ' if target['met'] else 'NOT MET'} {name}: {target['value']}\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--runtime", choices=("process", "docker"), default="process")
    parser.add_argument("--calls", action="store_true", help="log_metric and log_batch alone (processes)")
    parser.add_argument("--json", type=Path, help="write every number to this file")
    options = parser.parse_args()
    place, measured = environment(), Measured()
    with nullcontext([measure_logging]) if options.calls else parts_of(options.runtime) as parts:
        for number in range(options.rounds):
            for part in parts if number % 2 == 0 else parts[::-1]:
                part(place, measured)
            sys.stderr.write(f"round {number + 1} of {options.rounds} done\n")
    document = report(measured, options.rounds)
    show(document, measured)
    if options.json:
        options.json.write_text(json.dumps(document, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
