"""From *Create Service* to the first authenticated answer, against `mlflow server` as it comes.

    .venv/bin/python -m benchmarks.service --rounds 10 [--runtime docker] [--json FILE]

Ours is all that a user waits for, with the real service, object store and box: the try of bucket and key, the box's start, MLflow's first
start with a new database, the registration of a user, and the first answer with the password. MLflow's is one process tree on a new
database: no password, no object store, nobody asked. In turn, round by round. Needs root (the group is root's) and nginx; with
`--runtime docker`, where the server is two containers, Docker instead (`bin/setup heavy`). The image is built before.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import time
from pathlib import Path

from mlwf.client import Client, User
from mlwf.secret import Secret

from benchmarks.servers import Client as MlflowClient
from benchmarks.servers import default_server, scratch
from demo.ports import free_range
from tests.support.box import environment
from tests.support.docker import Docker, running_docker
from tests.support.runtimes import service_on
from tests.support.s3 import S3Store, start_s3_store

GROUP, LOGIN = "root", ("alice", "correct horse battery staple")


def ours(client: Client, store: S3Store, number: int) -> tuple[float, float]:
    """Seconds to `Service created`, and to the first answer."""
    name, bucket, key = f"round-{number}", store.make_bucket(), store.owner
    began = time.perf_counter()
    asked = client.create(group=GROUP, env_name=name, bucket=bucket, access_key_id=key.access_key, secret_access_key=Secret(key.secret_key))
    client.wait(asked, timeout=120)
    created = time.perf_counter() - began
    client.wait(client.set_users(GROUP, name, [User(LOGIN[0], Secret(LOGIN[1]))]))
    MlflowClient(client.server(GROUP, name).port, "/mlflow", LOGIN).first_answer()
    answered = time.perf_counter() - began
    client.wait(client.delete(GROUP, name), timeout=120)
    return created, answered


def theirs(place: Path) -> float:
    """Seconds of a cold start."""
    with scratch() as folder:
        began = time.perf_counter()
        with default_server(place, folder) as (_pid, client):
            client.first_answer()
            return time.perf_counter() - began


def measure(rounds: int, containers: Docker | None) -> dict[str, list[float]]:
    place, store, first = environment(), start_s3_store(), free_range(rounds + 4)  # a deleted server keeps its port
    found: dict[str, list[float]] = {"Service created, s": [], "first authenticated answer, s": [], "mlflow server: first answer, s": []}
    try:
        with service_on(containers, store, port_first=first, port_last=first + rounds + 3) as service, service.client() as client:
            for number in range(rounds):
                for values, seconds in zip(found.values(), (*ours(client, store, number), theirs(place)), strict=True):
                    values.append(seconds)
                print(f"round {number + 1} of {rounds} done", file=sys.stderr)
    finally:
        store.remove()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--runtime", choices=("process", "docker"), default="process")
    parser.add_argument("--json", type=Path, help="write every number to this file")
    options = parser.parse_args()
    with running_docker() if options.runtime == "docker" else contextlib.nullcontext() as containers:
        found = measure(options.rounds, containers)
    for name, values in found.items():
        print(f"{name:34} {statistics.median(values):6.2f}  [{min(values):.2f} .. {max(values):.2f}]")
    _created, answered, cold = found.values()
    ratio = statistics.median(ours / theirs for ours, theirs in zip(answered, cold, strict=True))
    print(f"{'met' if ratio <= 0.5 else 'NOT MET'}: at most 0.5 of `mlflow server`: {ratio:.3f}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
