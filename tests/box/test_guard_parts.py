"""The guard's small parts on a bad day: logs that grow, a full disk, a clock that was wrong."""

import errno
import io
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.ports import LOOPBACK
from tests.box.parts import LEAST, NoLoop, settings
from tracking_server.guard import signed
from tracking_server.guard.answers import Answers
from tracking_server.guard.http import Request, Respond, Response, accept_all
from tracking_server.guard.identity import Principal, Tell
from tracking_server.guard.log import Log
from tracking_server.guard.logs import LogKeeper
from tracking_server.guard.loop import READ, Loop
from tracking_server.guard.sessions import Sessions, SignInError
from tracking_server.guard.spent import Spent
from tracking_server.guard.watch import Watch


class Timers:
    """A loop whose timers come when a test says so."""

    def __init__(self) -> None:
        self.due: list[tuple[float, Callable[[], None]]] = []

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        self.due.append((seconds, call))


def test_logs_are_bounded(tmp_path: Path) -> None:
    reopened = []
    keeper = LogKeeper(NoLoop(), tmp_path, reopen=lambda: reopened.append(True), log=print, limit=10)  # type: ignore[arg-type]
    for name in ("access.log", "mlflow.log", "guard.log"):
        (tmp_path / name).write_text("x" * 11)
    (tmp_path / "nginx-error.log").write_text("short")
    keeper.bound()
    assert reopened == [True]
    (tmp_path / "nginx-error.log").write_text("short")
    keeper.bound()
    assert reopened == [True, True], "nginx had no room for a new one, and goes on with the old one until it has"
    (tmp_path / "access.log").touch()
    keeper.bound()
    assert reopened == [True, True]
    (tmp_path / "access.log").unlink()
    assert {path.name: path.stat().st_size for path in tmp_path.iterdir()} == {
        "access.log.1": 11,
        "guard.log": 0,
        "guard.log.1": 10,
        "mlflow.log": 0,
        "mlflow.log.1": 10,
        "nginx-error.log": 5,
    }


def test_a_log_that_claims_to_be_long_costs_its_end_only(tmp_path: Path) -> None:
    keeper = LogKeeper(NoLoop(), tmp_path, reopen=list, log=print, limit=10)  # type: ignore[arg-type]
    with (tmp_path / "mlflow.log").open("wb") as log:
        log.truncate(2**40)
        log.seek(0, 2)
        log.write(b"the end")
    keeper.bound()
    assert (tmp_path / "mlflow.log.1").read_bytes() == b"\0\0\0the end"
    assert (tmp_path / "mlflow.log").stat().st_size == 0


def test_a_full_disk_ends_no_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.StringIO):
        def write(self, _text: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sys, "stderr", Full())
    log = Log("/dev/full")
    log("a line")
    log.last_words("the last")


def test_half_a_character_ends_no_guard(tmp_path: Path) -> None:
    """JSON can name one, and what MLflow says of itself is a stranger's word."""
    Log(tmp_path / "guard.log")("MLflow did not start: \ud800")
    assert (tmp_path / "guard.log").read_text().endswith("Z MLflow did not start: ?\n")


def test_a_clock_that_was_ahead_at_a_start_forgets_nobody_who_signed_out(tmp_path: Path) -> None:
    path, now, month = tmp_path / "spent", 1000.0, 30 * 86400.0
    Spent(path, now=now).add("session", now + 43200, now=now)
    assert "session" in Spent(path, now=now + month)
    again = Spent(path, now=now + 60)
    assert ("session" in again, again.survived) == (True, True)


def test_what_is_over_is_forgotten_but_for_the_latest(tmp_path: Path) -> None:
    path = tmp_path / "spent"
    spent = Spent(path, now=0.0)
    spent.add("it-lasts", 1000.0, now=0.0)
    for number in range(5000):
        spent.add(f"ticket-{number}", 10.0, now=20.0)
    assert len(path.read_text().splitlines()) < 4096
    again = Spent(path, now=30.0)
    assert "it-lasts" in again
    assert [f"ticket-{number}" in again for number in (0, 3975, 3976, 4999)] == [False, False, True, True]


def test_a_clock_that_was_ahead_at_the_start_keeps_nobody_out_for_long(tmp_path: Path) -> None:
    times = [9 * 3600.0]
    sessions = Sessions(lambda: settings(origins=["http://127.0.0.1:1"]), Spent(tmp_path / "spent", now=times[0]), clock=lambda: times[0])
    sessions.set_keys({"one": b"k" * 32})

    def ticket(issued: float) -> str:
        claims = {"s": LEAST["server_id"], "u": "alice", "n": f"{issued}", "t": issued, "e": issued + 30}
        return signed.sign(signed.TICKET, "one", b"k" * 32, claims)

    times[0] = 100.0
    with pytest.raises(SignInError, match="too_old"):
        sessions.enter(ticket(90.0), origin="http://127.0.0.1:1", portal_user="")
    times[0] = 110.0
    assert sessions.enter(ticket(105.0), origin="http://127.0.0.1:1", portal_user="")[0].user == "alice"


def test_a_session_of_a_clock_that_was_ahead_is_none_and_one_of_a_clock_that_is_set_by_minutes_goes_on(tmp_path: Path) -> None:
    times, origin = [400 * 86400.0], "http://127.0.0.1:1"
    sessions = Sessions(lambda: settings(origins=[origin]), Spent(tmp_path / "spent", now=times[0]), clock=lambda: times[0])
    sessions.set_keys({"one": b"k" * 32})

    def enter() -> str:
        claims = {"s": LEAST["server_id"], "u": "alice", "n": f"{times[0]}", "t": times[0], "e": times[0] + 30}
        cookie = sessions.enter(signed.sign(signed.TICKET, "one", b"k" * 32, claims), origin=origin, portal_user="")[1]
        return cookie.partition(";")[0]

    of_next_year = enter()
    assert sessions.find(of_next_year, "") is not None
    times[0] -= 365 * 86400
    assert sessions.find(of_next_year, "") is None, "it would last until then"
    of_now = enter()
    times[0] -= 1800
    assert sessions.find(of_now, "") is not None


class Alice:
    """A scheme that knows one user only, whoever asks."""

    def attempt(self, _request: Request, tell: Tell) -> bool:
        tell(Principal("basic", "alice"))
        return True


def test_nginx_is_told_who_asks_and_of_which_server() -> None:
    """It passes both on to MLflow, in place of what a client said."""
    mlflow: Any = None
    answers = Answers(settings=settings, config=dict, mlflow=mlflow, schemes=[Alice()], closed=lambda: False, paths={})
    given: list[Response] = []
    answers(Request("/auth", {}), given.append)
    assert given == [Response(200, b"", (("X-Aihub-Principal", "basic:alice"), ("X-Aihub-Server", LEAST["server_id"])))]


def test_a_changed_file_is_seen_within_a_second(tmp_path: Path) -> None:
    """Who was removed is out after two: the second one is for what follows the look."""
    loop: Any = Timers()
    file, seen = tmp_path / "users.json", []
    Watch(loop, {file: lambda: seen.append(True)}, log=print)
    for number in (1, 2, 3):
        file.write_text("x" * number)
        ((seconds, look),) = loop.due
        assert seconds <= 1
        loop.due.clear()
        look()
        assert len(seen) == number


class Crowded(socket.socket):
    """A listener of a process that has no descriptor left, until there is room."""

    room, tries = False, 0
    accepted: socket.socket | None = None

    def accept(self) -> tuple[socket.socket, Any]:
        self.tries += 1
        if not self.room:
            raise OSError(errno.EMFILE, "Too many open files")
        self.accepted, address = super().accept()
        return self.accepted, address


@pytest.fixture
def crowded() -> Iterator[tuple[Loop, Crowded, socket.socket]]:
    """It listens on the loop, and a client that has asked for something waits."""
    loop = Loop()

    def handler(_request: Request, respond: Respond) -> None:
        respond(Response(200))
        loop.stop()

    with Crowded() as listener, socket.socket() as client:
        listener.bind((LOOPBACK, 0))
        listener.listen()
        listener.setblocking(False)
        client.connect(listener.getsockname())
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        loop.watch(listener, READ, lambda: accept_all(loop, listener, handler, once=True))
        yield loop, listener, client
        if listener.accepted is not None:
            listener.accepted.close()
    signal.set_wakeup_fd(-1)  # the loop's bell


def test_without_descriptors_the_guard_tries_again_at_times_and_does_not_spin(crowded: tuple[Loop, Crowded, socket.socket]) -> None:
    loop, listener, client = crowded
    loop.later(0.5, lambda: setattr(listener, "room", True))
    loop.run()
    assert client.recv(100).startswith(b"HTTP/1.1 200 ")
    assert 2 <= listener.tries <= 10


@pytest.mark.parametrize("meanwhile", ["unwatch", "watch"])
def test_a_listener_that_rests_does_what_is_said_of_it_meanwhile(crowded: tuple[Loop, Crowded, socket.socket], meanwhile: str) -> None:
    """MLflow's passes to MLflow as soon as that runs."""
    loop, listener, _client = crowded
    called: list[bool] = []

    def other() -> None:
        called.append(True)
        loop.unwatch(listener)

    def turn() -> None:
        assert listener.tries == 1
        listener.room = True
        loop.unwatch(listener) if meanwhile == "unwatch" else loop.watch(listener, READ, other)

    loop.later(0, turn)
    loop.later(0.3, loop.stop)
    loop.run()
    assert (listener.tries, called) == (1, [True] if meanwhile == "watch" else [])
