"""What it costs to know who asks: `python -m benchmarks.access [--rounds N] [--json FILE]`.

The same MLflow of one box is asked through its nginx with a session's cookie, with a bearer token and with BASIC, and through a second
nginx of the same text without the questions to the guard. One call here, one there, in random order, so that a busy moment hits all.
Then calls with the right password while wrong ones come, and as many calls as four connections get through, by turns. Needs nginx, and the
environment of `make envs`.
"""

import argparse
import hashlib
import json
import random
import re
import secrets
import statistics
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import requests

from benchmarks.box import Measured
from benchmarks.servers import SEARCH, Client, new_box
from demo.ports import LOOPBACK, free_ports
from tests.support.box import MLFLOW_VERSION, Box, environment, until
from tests.support.flood import RATE, flooded
from tests.support.tickets import KEY_ID, keys_document, ticket
from tracking_server.nginx import nginx_text
from tracking_server.settings import from_mapping

CALLS = 150
CONNECTIONS = 4
BURST = 400
PORTAL = "https://portal.example.org"
WAYS = ("cookie", "bearer", "basic")


@contextmanager
def open_door(box: Box) -> Iterator[int]:
    """A second nginx before the same MLflow, which asks nobody who it is; its port."""
    (port,) = free_ports(1)
    settings = from_mapping({**box.settings, "listen": f"{LOOPBACK}:{port}"})
    text = re.sub(r"(?m)^ *auth_request(_set)? .*\n", "", nginx_text(settings, user="root"))
    text = text.replace("$aihub_server;", '"";').replace("pid nginx.pid", "pid open.pid").replace("access.log", "open.log")
    run = box.home / "run"
    (run / "open.conf").write_text(text)
    argv = [settings.nginx, "-p", "./", "-e", "../log/open-error.log", "-c", "open.conf"]
    with (box.home / "open.stderr").open("wb") as errors:
        process = subprocess.Popen(argv, cwd=run, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors)
    try:
        until((run / "open.pid").exists, what=f"the second nginx: {(box.home / 'open.stderr').read_text()}")
        yield port
    finally:
        process.terminate()
        process.wait(30)


def headers_of(box: Box, key: bytes, token: str) -> dict[str, dict[str, str]]:
    """What a client sends, by the way in which it says who it is."""
    form = {"ticket": ticket(key, box.settings["server_id"])}
    answer = requests.post(f"{box.url}/-/sign-in", data=form, headers={"Origin": PORTAL}, allow_redirects=False, timeout=30)
    answer.raise_for_status()
    return {
        "cookie": {"Cookie": answer.headers["Set-Cookie"].partition(";")[0], "Origin": PORTAL},
        "bearer": {"Authorization": f"Bearer {token}"},
        "basic": {"Authorization": "Basic " + b64encode(":".join(box.auth).encode()).decode()},
        "none": {"Host": f"{LOOPBACK}:{box.port}"},  # MLflow knows no other
    }


def client(port: int, headers: dict[str, str]) -> Client:
    made = Client(port, "/mlflow")
    made.headers.update(headers)
    return made


def measure(place: Path, measured: Measured) -> None:
    key, token = secrets.token_bytes(32), f"aihub_bench_{secrets.token_urlsafe(32)}"
    entry = {"id": "bench", "sha256": hashlib.sha256(token.encode()).hexdigest(), "user": "alice", "expires": time.time() + 86400}
    with new_box(place, idle_seconds=0, origins=[PORTAL]) as box:
        box.replace("ticket_keys.json", keys_document((KEY_ID, key)))
        box.replace("tokens.json", json.dumps({"tokens": [entry]}))
        box.start()
        box.wait_state("awake")
        with open_door(box) as port:
            ways = headers_of(box, key, token)
            ports = {way: box.port if way in WAYS else port for way in ways}
            one_by_one({way: client(ports[way], ways[way]) for way in ways}, measured)
            under_wrong_passwords(box, measured)
            all_at_once({way: lambda way=way: client(ports[way], ways[way]) for way in ways}, measured)  # type: ignore[misc]


def one_by_one(clients: dict[str, Client], measured: Measured) -> None:
    times: dict[str, list[float]] = {way: [] for way in clients}
    for step in range(CALLS + 10):
        for way in random.Random(step).sample(sorted(clients), len(clients)):  # noqa: S311
            times[way].append(clients[way].seconds(*SEARCH))
    for way, values in times.items():
        measured.add(f"{way}: one call, ms", statistics.median(values[10:]) * 1000)


def under_wrong_passwords(box: Box, measured: Measured) -> None:
    """One user's right password, which is known, while that user's name is tried with many others."""
    asks = Client(box.port, "/mlflow", box.auth)
    with flooded(box, box.auth[0]) as flood:
        before, began = flood.answered, time.perf_counter()
        times = [asks.seconds(*SEARCH) for _ in range(CALLS)]
        measured.add("flood: wrong logins a second", (flood.answered - before) / (time.perf_counter() - began))
    measured.add("basic, flooded: one call, ms", statistics.median(times) * 1000)


def all_at_once(makers: dict[str, Callable[[], Client]], measured: Measured) -> None:
    """Calls a second over several connections; each way has two turns, the second in the other order."""
    order = random.sample(sorted(makers), len(makers))
    taken: dict[str, float] = dict.fromkeys(makers, 0.0)
    for way in [*order, *reversed(order)]:
        connections = [makers[way]() for _ in range(CONNECTIONS)]
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            list(pool.map(lambda each: each.seconds(*SEARCH), connections))
            began = time.perf_counter()
            list(pool.map(lambda each: [each.seconds(*SEARCH) for _ in range(BURST // CONNECTIONS)], connections))
            taken[way] += time.perf_counter() - began
    for way, seconds in taken.items():
        measured.add(f"{way}: calls a second", 2 * BURST / seconds)


def report(measured: Measured, rounds: int) -> dict[str, object]:
    targets: dict[str, dict[str, object]] = {}
    for way in WAYS:
        pairs = zip(measured.rounds[f"{way}: one call, ms"], measured.rounds["none: one call, ms"], strict=True)
        added = statistics.median(ours - none for ours, none in pairs)
        ratio = statistics.median(measured.ratio(f"{way}: calls a second", "none: calls a second"))
        value = f"{ratio:.3f} of the calls a second, {added:+.2f} ms a call"
        targets[f"{way}/none >= 0.95, or < 0.5 ms added"] = {"met": ratio >= 0.95 or added < 0.5, "value": value}
    reached = measured.median("flood: wrong logins a second")
    added = measured.median("basic, flooded: one call, ms") - measured.median("basic: one call, ms")
    value = f"{reached:.0f}, and a right one takes {added:+.2f} ms"
    targets[f"{RATE:.0f} wrong logins a second"] = {"met": reached >= RATE, "value": value}
    return {"mlflow": MLFLOW_VERSION, "rounds": rounds, "measured": measured.rounds, "targets": targets}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", type=Path, help="write every number to this file")
    options = parser.parse_args()
    place, measured = environment(), Measured()
    for number in range(options.rounds):
        measure(place, measured)
        sys.stderr.write(f"round {number + 1} of {options.rounds} done\n")
    document = report(measured, options.rounds)
    for name, values in measured.rounds.items():
        sys.stdout.write(f"{name:30} {statistics.median(values):9.2f}  [{min(values):.2f} .. {max(values):.2f}]\n")
    for name, target in document["targets"].items():  # type: ignore[attr-defined]
        sys.stdout.write(f"{'met    ' if target['met'] else 'NOT MET'} {name}: {target['value']}\n")
    if options.json:
        options.json.write_text(json.dumps(document, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
