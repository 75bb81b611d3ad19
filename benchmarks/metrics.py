"""What one question for the metrics costs, by how many servers and past operations the registry holds.

.venv/bin/python -m benchmarks.metrics --servers 2000 --operations 50000
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from prometheus_client.exposition import generate_latest

from backend.api.numbers import collectors
from backend.registry.database import Registry
from backend.registry.models import Operation, Port, Server, now
from backend.settings import Settings

FIRST_PORT = 21000


def servers(count: int) -> Iterator[Server]:
    """Rows as large as real ones; each tenth has something wrong."""
    for number in range(count):
        yield Server(
            id=f"k{number:011d}",
            group_name=f"ga{number:05d}",
            gid=number,
            env_name="wine",
            created_by="alice",
            desired="running",
            status="sleeping",
            reason=None if number % 10 else {"code": "server_too_large", "params": {}, "log": None},
            host="mlflow01.example.org",
            port=FIRST_PORT + number,
            mlflow_version="3.17.2",
            schema_revision="abc",
            idle_seconds=900,
            bucket="wine-models",
            prefix=f"mlflow/k{number:011d}",
            region="us-east-1",
            artifact_access="proxied",
            access_key_id="AKIAEXAMPLE",
            secret_access_key="x" * 200,
            box_keys="y" * 600,
        )


def operations(count: int) -> Iterator[Operation]:
    for number in range(count):
        made = now()
        steps = [{"name": "start_box", "state": "succeeded", "started_at": made.isoformat(), "finished_at": None, "detail": None}] * 4
        yield Operation(
            kind="start",
            group_name="ga00000",
            env_name="wine",
            requested_by="alice",
            state="succeeded",
            steps=steps,
            created_at=made,
            finished_at=made + timedelta(seconds=number % 70),
        )


def measure(folder: Path, *, server_count: int, operation_count: int, rounds: int) -> list[float]:
    """Milliseconds of each question."""
    settings = Settings(state_dir=folder)
    registry = Registry(settings.database_url)
    registry.migrate()
    with registry.session() as session:
        session.add_all(Port(port=FIRST_PORT + number, server_id=f"k{number:011d}") for number in range(server_count))
        session.flush()
        session.add_all(servers(server_count))
        session.add_all(operations(operation_count))
    numbers, took = collectors(settings, registry), []
    for _ in range(rounds):
        began = time.perf_counter()
        generate_latest(numbers)
        took.append((time.perf_counter() - began) * 1000)
    registry.close()
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--servers", type=int, default=2000)
    parser.add_argument("--operations", type=int, default=50000)
    parser.add_argument("--rounds", type=int, default=20)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        took = measure(Path(folder), server_count=asked.servers, operation_count=asked.operations, rounds=asked.rounds)
    sys.stdout.write(
        f"{asked.servers} servers, {asked.operations} operations: median {statistics.median(took):.1f} ms, longest {max(took):.1f} ms\n"
    )


if __name__ == "__main__":
    main()
