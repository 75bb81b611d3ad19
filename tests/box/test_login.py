"""Who gets in, and how fast, while others knock with wrong passwords."""

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tests.support.box import NOTICED, PASSWORD, USER, Box, seconds_until, until
from tracking_server.guard.verifier import _LONGEST_REST, LANE_DEPTH

pytestmark = pytest.mark.box
MakeBox = Callable[..., Box]


def test_no_users_means_nobody(own_box: MakeBox) -> None:
    box = own_box()
    box.replace("users.json", json.dumps({"users": []}))
    box.start()
    assert box.request("GET", "/-/info").status_code == 401
    (box.home / "config" / "users.json").unlink()
    box.write_users({USER: PASSWORD})
    until(lambda: box.request("GET", "/-/info").status_code == 200, seconds=NOTICED, what="the new user let in")
    (box.home / "config" / "users.json").unlink()
    until(lambda: box.request("GET", "/-/info").status_code == 401, seconds=NOTICED, what="everybody shut out")


def test_removed_users_are_out_within_two_seconds_and_the_others_stay(own_box: MakeBox) -> None:
    box, leaving = own_box(), ["bob", "carol", "dave", "erin"]
    users = {USER: PASSWORD, **{name: f"{name}'s" for name in leaving}}
    box.write_users(users)
    box.start()
    assert {box.request("GET", "/-/info", auth=auth).status_code for auth in users.items()} == {200}
    seconds = []
    for name in leaving:
        auth = (name, users.pop(name))
        box.write_users(users)
        seconds.append(seconds_until(lambda auth=auth: box.request("GET", "/-/info", auth=auth).status_code == 401, what="shut out"))
        assert {box.request("GET", "/-/info", auth=auth).status_code for auth in users.items()} == {200}
    assert min(seconds[1:]) <= 2, seconds


def test_a_broken_users_file_leaves_the_last_good_one(own_box: MakeBox) -> None:
    box = own_box()
    box.start()
    box.replace("users.json", "{not json")
    until(lambda: "users stay as they were" in (box.home / "log" / "guard.log").read_text(), what="the complaint")
    assert box.request("GET", "/-/info").status_code == 200


@pytest.mark.parametrize("header", ["Basic", "Basic !!!", "Basic YWxpY2U=", "Bearer abc", "Basic " + "A" * 9000, "basic YTpi"])
def test_odd_authorization_headers_are_401(box: Box, header: str) -> None:
    answer = requests.get(f"{box.url}/-/info", headers={"Authorization": header}, timeout=30)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == 'Basic realm="MLflow"'
    assert answer.json()["error_code"] == "UNAUTHENTICATED"


def test_what_a_client_says_about_itself_is_dropped(box: Box) -> None:
    lies = {"X-Aihub-Principal": "basic:root", "X-Aihub-Server": "other", "X_Aihub_Principal": "basic:root", "X-Real-IP": "6.6.6.6"}
    assert box.request("GET", "/-/info", headers=lies).json()["principal"] == "basic:alice"


def test_a_401_comes_before_the_body_is_read(box: Box) -> None:
    head = f"PUT /mlflow/api/2.0/mlflow-artifacts/artifacts/0/x/big HTTP/1.1\r\nHost: 127.0.0.1:{box.port}\r\n"
    with socket.create_connection(("127.0.0.1", box.port), timeout=30) as connection:
        connection.sendall(f"{head}Content-Length: 600000000\r\n\r\nbegun".encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 401 ")


class Flood(threading.Thread):
    """500 different wrong passwords a second for one user, over several connections."""

    def __init__(self, box: Box, user: str, rate: int = 500) -> None:
        super().__init__(daemon=True)
        self.box, self.user, self.rate = box, user, rate
        self.statuses: Counter[int] = Counter()
        self.enough = threading.Event()
        self._number = 0

    def _knock(self, session: requests.Session) -> None:
        self._number += 1
        auth = (self.user, f"wrong {self._number}")
        self.statuses[session.get(f"{self.box.url}/-/info", auth=auth, timeout=60).status_code] += 1

    def _knock_on(self) -> None:
        with requests.Session() as session:
            while not self.enough.is_set():
                started = time.monotonic()
                self._knock(session)
                self.enough.wait(max(0.0, 16 / self.rate - (time.monotonic() - started)))

    def run(self) -> None:
        with ThreadPoolExecutor(16) as pool:
            for _ in range(16):
                pool.submit(self._knock_on)


def test_a_flood_of_wrong_passwords_delays_nobody_else(own_box: MakeBox) -> None:
    box = own_box(cost=10)
    box.write_users({USER: PASSWORD, "bob": "bob's", "carol": "carol's"}, cost=10)
    box.start()
    assert box.request("GET", "/-/info").status_code == 200
    flood = Flood(box, USER)
    flood.start()
    until(lambda: sum(flood.statuses.values()) > 300, what="the flood")
    known, first = [], []
    for _ in range(30):
        started = time.monotonic()
        assert box.request("GET", "/-/info").status_code == 200
        known.append(time.monotonic() - started)
    for auth in (("bob", "bob's"), ("carol", "carol's")):
        started = time.monotonic()
        assert box.request("GET", "/-/info", auth=auth).status_code == 200
        first.append(time.monotonic() - started)
    flood.enough.set()
    flood.join()
    assert set(flood.statuses) <= {401, 429}, flood.statuses
    assert flood.statuses[429] > 0
    assert sorted(known)[15] < 1, known
    assert max(first) < LANE_DEPTH * _LONGEST_REST, "what it takes to wait behind the flood's lane"


def test_too_many_are_told_when_to_come_again(own_box: MakeBox) -> None:
    box = own_box(cost=12)
    box.start()
    with ThreadPoolExecutor(40) as pool:
        auths = [(USER, f"wrong {number}") for number in range(40)]
        answers = list(pool.map(lambda auth: box.request("GET", "/-/info", auth=auth), auths))
    refused = [answer for answer in answers if answer.status_code == 429]
    assert {answer.status_code for answer in answers} == {401, 429}
    assert all(int(answer.headers["Retry-After"]) > 0 and answer.json()["error_code"] == "RESOURCE_EXHAUSTED" for answer in refused)
