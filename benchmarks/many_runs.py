"""Runs put in order by a metric, as MLflow's page does at a press on a column's head: `python -m benchmarks.many_runs [--runs N …]`.

Each number of runs is asked for in a database as MLflow makes it, and in one that was told its sizes, as a tracking server's is at its
start. What is not answered in time counts as that time. Needs the environment of `make envs`.
"""

import argparse
import sqlite3
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from benchmarks.servers import scratch
from tests.support.box import environment
from tracking_server.mlflow_process.database import tell_sizes, turn_on_wal

NAMES = 20
"""Metrics of each run; with two parameters and two tags."""
ASK = """
import sys, time
from mlflow.entities import ViewType
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
store = SqlAlchemyStore("sqlite:///" + sys.argv[1], "/x")
began = time.perf_counter()
found = store.search_runs(["0"], "", ViewType.ACTIVE_ONLY, max_results=100, order_by=["metrics.m7 DESC"])
assert len(found) == 100
print(time.perf_counter() - began)
"""


def filled(place: Path, file: Path, runs: int) -> Path:
    """MLflow's own empty database with so many runs in it."""
    file.write_bytes((place / "template.db").read_bytes())
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.executemany(
            "INSERT INTO runs (run_uuid, user_id, name, status, lifecycle_stage, start_time, experiment_id, artifact_uri)"
            " VALUES (?, 'u', 'r', 'FINISHED', 'active', ?, 0, '/x')",
            ((f"{number:032x}", number) for number in range(runs)),
        )
        for insert in (
            "INSERT INTO params (key, value, run_uuid) VALUES (?, ?, ?)",
            "INSERT INTO tags (key, value, run_uuid) VALUES (?, ?, ?)",
        ):
            connection.executemany(insert, ((f"k{name}", "v", f"{number:032x}") for number in range(runs) for name in range(2)))
        connection.executemany(
            "INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid) VALUES (?, ?, 0, 0, 0, ?)",
            ((f"m{name}", number * 7919 % 1000, f"{number:032x}") for number in range(runs) for name in range(NAMES)),
        )
    return file


def seconds(place: Path, file: Path, limit: float) -> float:
    """Of one question; ``limit`` where it was not answered in that."""
    argv = [place / "bin" / "python", "-P", "-c", ASK, file]
    try:
        done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return limit
    return float(done.stdout.splitlines()[-1])


def measured(place: Path, runs: int, rounds: int, limit: float) -> Iterator[tuple[str, list[float]]]:
    with scratch() as folder:
        plain = filled(place, folder / "plain.db", runs)
        told = folder / "told.db"
        told.write_bytes(plain.read_bytes())
        for file in (plain, told):
            with closing(sqlite3.connect(file)) as connection:
                turn_on_wal(connection)
                if file == told:
                    tell_sizes(connection)
        times: dict[Path, list[float]] = {plain: [], told: []}
        for number in range(rounds):
            for file in (plain, told) if number % 2 == 0 else (told, plain):
                if limit not in times[file]:  # nobody needs to wait for that twice
                    times[file].append(seconds(place, file, limit))
        yield "as MLflow makes it", times[plain]
        yield "a tracking server's", times[told]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, nargs="+", default=[4_000, 100_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=300.0, help="seconds after which a question counts as not answered")
    options = parser.parse_args()
    for runs in options.runs:
        for name, times in measured(environment(), runs, options.rounds, options.limit):
            late = " (not answered)" if options.limit in times else ""
            span = f"[{min(times):.2f} .. {max(times):.2f}]"
            sys.stdout.write(f"{runs:7} runs, {name:20} {statistics.median(times):8.2f} s {span}{late}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
