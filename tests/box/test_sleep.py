"""Sleep and wake: nobody is refused and nothing runs twice, however often MLflow comes and goes."""

import random
import socket
import threading
import time
import uuid
from base64 import b64encode
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.box import STARTERS, Box, alive, until

pytestmark = pytest.mark.box
MakeBox = Callable[..., Box]


def run_names(box: Box) -> Counter[str]:
    """How often each name was given to a run."""
    names: Counter[str] = Counter()
    token = None
    while True:
        page = box.api("POST", "runs/search", json={"experiment_ids": ["0"], "max_results": 1000, "page_token": token})
        names.update(run["info"]["run_name"] for run in page.get("runs", []))
        token = page.get("next_page_token")
        if not token:
            return names


def _answered_once_each(box: Box, *, pause: tuple[float, float], over: Callable[[Callable[[], bool]], None]) -> None:
    """Two streams of POSTs with unique names while `over` happens to the box; `over` is given whether a stream broke."""
    enough = threading.Event()

    def stream(seed: int) -> list[str]:
        chance, sent = random.Random(seed), []  # noqa: S311  # pauses, not secrets
        while not enough.wait(chance.uniform(*pause)):
            sent.append(uuid.uuid4().hex)
            box.api("POST", "runs/create", json={"experiment_id": "0", "run_name": sent[-1]})
        return sent

    with ThreadPoolExecutor(2) as pool:
        streams = [pool.submit(stream, seed) for seed in (1, 2)]
        try:
            over(lambda: any(each.done() for each in streams))
        finally:
            enough.set()
    assert run_names(box) == Counter(name for each in streams for name in each.result())


def _ended(box: Box) -> int:
    return (box.home / "log" / "guard.log").read_text().count("MLflow ended with status 0")


def test_a_steady_stream_over_many_sleeps_is_answered_once_each(own_box: MakeBox) -> None:
    """The pauses are about as long as MLflow waits, so that requests come while it goes to sleep."""
    box = own_box(idle_seconds=0.1)
    box.start()

    def many_sleeps(broken: Callable[[], bool]) -> None:
        until(lambda: _ended(box) >= 6 or broken(), seconds=240, what="six sleeps")

    _answered_once_each(box, pause=(1.0, 2.2), over=many_sleeps)


def test_a_dense_stream_over_restarts_is_answered_once_each(own_box: MakeBox) -> None:
    """nginx uses its kept connections again and again: a drain must end nevertheless, and lose nothing."""
    box = own_box(idle_seconds=0)
    box.start()
    box.wait_state("awake")

    def restarts(broken: Callable[[], bool]) -> None:
        for number in range(1, 5):
            box.write_credentials("key", f"secret-{number}")
            until(lambda number=number: _ended(box) >= number or broken(), seconds=30, what=f"restart {number}")  # type: ignore[misc]
            until(lambda: box.health()["state"] == "awake" or broken(), seconds=60, what="awake again")

    _answered_once_each(box, pause=(0.0, 0.02), over=restarts)


def _raw_request(box: Box, name: str) -> bytes:
    body = f'{{"experiment_id": "0", "run_name": "{name}"}}'
    credential = b64encode(":".join(box.auth).encode()).decode()
    head = f"POST /mlflow/api/2.0/mlflow/runs/create HTTP/1.1\r\nHost: 127.0.0.1:{box.port}\r\nAuthorization: Basic {credential}\r\n"
    return f"{head}Content-Type: application/json\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


def _exchange(box: Box, name: str, together: threading.Barrier) -> str:
    with socket.create_connection(("127.0.0.1", box.port), timeout=120) as connection:
        together.wait(60)
        connection.sendall(_raw_request(box, name))
        answer = b""
        while data := connection.recv(65536):
            answer += data
    return answer.split(b" ", 2)[1].decode()


def test_a_thousand_connections_onto_a_sleeping_server_are_answered_once_each(own_box: MakeBox) -> None:
    box = own_box(idle_seconds=0.3)
    box.start()
    box.wait_state("asleep")
    names = [uuid.uuid4().hex for _ in range(1000)]
    together = threading.Barrier(len(names))
    threading.stack_size(256 * 1024)
    try:
        with ThreadPoolExecutor(len(names)) as pool:
            statuses = Counter(pool.map(lambda name: _exchange(box, name, together), names))
    finally:
        threading.stack_size(0)
    assert statuses == Counter({"200": 1000}), box.last_words()
    assert run_names(box) == Counter(names)


def test_a_long_upload_is_activity(own_box: MakeBox) -> None:
    box = own_box(idle_seconds=0.5)
    box.start()
    box.wait_state("awake", "asleep")
    credential = b64encode(":".join(box.auth).encode()).decode()
    path = "/mlflow/api/2.0/mlflow-artifacts/artifacts/0/x/slow.bin"
    head = f"PUT {path} HTTP/1.1\r\nHost: 127.0.0.1:{box.port}\r\nAuthorization: Basic {credential}\r\nContent-Length: 1000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", box.port), timeout=60) as connection:
        connection.sendall(head.encode() + b"x")
        box.wait_state("awake")
        pid = box.mlflow_process().pid
        deadline = time.monotonic() + 2.5
        while time.monotonic() < deadline:
            connection.sendall(b"x")
            assert box.health()["state"] == "awake"
            assert box.mlflow_process().pid == pid
            time.sleep(0.05)
    box.wait_state("asleep")


def test_health_version_and_refused_logins_wake_nobody(own_box: MakeBox) -> None:
    box = own_box(idle_seconds=0.2)
    box.start()
    box.wait_state("asleep")
    starts = (box.home / "log" / "guard.log").read_text().count("awake")
    assert box.request("GET", "/health", auth=None).text == "OK"
    assert box.request("GET", "/version", auth=None).text == "3.17.2"
    assert box.request("GET", "/-/info").json()["principal"] == "basic:alice"
    assert box.request("GET", "/-/info", auth=None).status_code == 401
    assert box.request("GET", "/", auth=("alice", "wrong")).status_code == 401
    health = box.health()
    of_access = {"revoked.json", "ticket_keys.json", "tokens.json", "users.json"}
    assert set(health.pop("config")) == {"keys.json", "s3/credentials", "settings.json"} | of_access
    assert health == {"server_id": "k3v9x2m7q4ab", "state": "asleep", "mlflow_version": "3.17.2", "reason": None}
    assert (box.home / "log" / "guard.log").read_text().count("awake") == starts


@pytest.mark.parametrize("own_box", STARTERS, indirect=True)
def test_new_keys_drain_and_restart_mlflow(own_box: MakeBox) -> None:
    box = own_box(idle_seconds=0)
    box.start()
    box.wait_state("awake")
    before = box.mlflow_process().pid
    box.write_credentials("other", "other")
    box.wait_state("asleep")
    box.api("POST", "runs/create", json={"experiment_id": "0", "run_name": "after"})
    assert box.mlflow_process().pid != before
    assert run_names(box) == Counter({"after": 1})


@pytest.mark.parametrize("own_box", STARTERS, indirect=True)
def test_two_workers_sleep_and_wake_together(own_box: MakeBox) -> None:
    box = own_box(idle_seconds=0.5, workers=2)
    box.start()
    names = [uuid.uuid4().hex for _ in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: box.api("POST", "runs/create", json={"experiment_id": "0", "run_name": name}), names))

    def awake() -> list[int]:
        box.api("GET", "experiments/search", params={"max_results": 1})  # it may have fallen asleep before it was looked at
        found = [each.pid for each in box.find_all("mlflow_process")]
        return found if len(found) == 3 else []

    pids = until(awake, what="both workers and who started them")
    box.wait_state("asleep")
    assert not alive(pids)
    assert run_names(box) == Counter(names)
