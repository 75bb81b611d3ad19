"""Many jobs that log at once: `python -m benchmarks.writers [--clients N …] [--rounds N]`.

Each client logs metrics into a run of its own, one after the other, for some seconds; through a box and into MLflow alone, in turn. What
counts is the slowest call of a hundred, how many are answered in a second, and how many are refused. Needs nginx, and the environment of
`make envs`.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from benchmarks.servers import Client, alone, new_box, scratch
from tests.support.box import environment

SECONDS = 8.0


def run_of(client: Client) -> str:
    made = client.post("/api/2.0/mlflow/runs/create", {"experiment_id": "0"})
    return str(made["run"]["info"]["run_id"])  # type: ignore[index]


def calls(client: Client, run_id: str, until: float) -> list[tuple[float, bool]]:
    """The seconds of each, and whether it was answered well."""
    times: list[tuple[float, bool]] = []
    while (began := time.perf_counter()) < until:
        step = len(times)
        document = {"run_id": run_id, "key": "m", "value": step / 7, "timestamp": 1_700_000_000_000 + step, "step": step}
        try:
            client.post("/api/2.0/mlflow/runs/log-metric", document)
        except RuntimeError:
            times.append((time.perf_counter() - began, False))
        else:
            times.append((time.perf_counter() - began, True))
    return times


def at_once(new_client: Callable[[], Client], clients: int) -> tuple[float, float, int]:
    """Calls answered in a second, the seconds of the slowest in a hundred, and how many were refused."""
    every = [new_client() for _ in range(clients)]
    runs = [run_of(client) for client in every]
    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        found = [each for times in pool.map(lambda one: calls(*one, began + SECONDS), zip(every, runs, strict=True)) for each in times]
    took, times = time.perf_counter() - began, sorted(seconds for seconds, _ in found)
    well = sum(is_well for _, is_well in found)
    return well / took, times[len(times) * 99 // 100], len(found) - well


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16, 40])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    place = environment()
    measured: dict[tuple[int, str], list[tuple[float, float, int]]] = {}
    with scratch() as folder, alone(place, folder) as bare, new_box(place, idle_seconds=0) as box:
        box.start()
        box.wait_state("awake")
        sides: dict[str, Callable[[], Client]] = {
            "MLflow alone": lambda: Client(80, "", unix=folder / "mlflow.sock"),
            "the box": lambda: Client(box.port, "/mlflow", box.auth),
        }
        bare.close()
        for number in range(options.rounds):
            for clients in options.clients:
                for name in sorted(sides, reverse=number % 2 == 1):
                    measured.setdefault((clients, name), []).append(at_once(sides[name], clients))
    for (clients, name), found in sorted(measured.items()):
        rates, slowest, refused = zip(*found, strict=True)
        rate = f"{statistics.median(rates):6.1f} calls a second [{min(rates):.1f} .. {max(rates):.1f}]"
        late = f"{statistics.median(slowest) * 1000:.0f} ms [{min(slowest) * 1000:.0f} .. {max(slowest) * 1000:.0f}]"
        sys.stdout.write(f"{clients:3} clients, {name:12} {rate}, 1 in 100 slower than {late}, {sum(refused)} refused\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
