"""Clients that are slow, greedy or no HTTP at all: others are answered meanwhile."""

import contextlib
import os
import pwd
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from backend.serving.http_server import ARRIVAL_SECONDS
from tests.service.edge.live import Live, live_service, parsed, request, until

NOBODY = pwd.getpwnam("nobody").pw_uid


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with live_service(workers=1, threads=4) as service:
        service.start()
        yield service


def crowd(live: Live, stack: ExitStack, count: int, data: bytes) -> list[socket.socket]:
    """So many connections that have sent this and go on saying nothing."""
    made = []
    for _ in range(count):
        connection = stack.enter_context(live.connection())
        with contextlib.suppress(BrokenPipeError):  # closed at once, being one too many
            connection.sendall(data)
        made.append(connection)
    return made


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("data", [b"", b"GET /api/v1/me HTTP/1.1\r\nHost: x\r\nX-Slow: ", request("PUT", "/servers/a/bb/users")[:-1]])
def test_a_crowd_of_slow_connections_keeps_nobody_waiting(live: Live, data: bytes) -> None:
    with ExitStack() as stack:
        began = time.monotonic()
        crowd(live, stack, 40, data)
        assert live.ask_as(NOBODY, request("GET", "/me"))[0] == 200
        assert time.monotonic() - began < ARRIVAL_SECONDS, "before the crowd is cut off"


def test_no_connection_is_kept_for_a_next_request(live: Live) -> None:
    """One that is closed in the moment of its next use would leave a change without an answer."""
    head, _gap, _body = live.raw(b"GET /api/v1/health HTTP/1.1\r\nHost: x\r\n\r\n").partition(b"\r\n\r\n")
    assert b"connection: close" in head.lower()


def test_what_does_not_arrive_is_cut_off(live: Live) -> None:
    with ExitStack() as stack:
        (slow,) = crowd(live, stack, 1, b"GET /api/v1/me HTTP/1.1\r\nX-Slow: ")
        slow.settimeout(ARRIVAL_SECONDS * 2)
        began = time.monotonic()
        while time.monotonic() - began < ARRIVAL_SECONDS * 4:  # a byte now and then does not help
            try:
                slow.sendall(b"x")
            except OSError:
                break
            slow.settimeout(0.5)
            try:
                if not slow.recv(1):
                    break
            except TimeoutError:
                continue
        assert ARRIVAL_SECONDS - 2 < time.monotonic() - began < ARRIVAL_SECONDS * 3
    assert live.ask("GET", "/me")[0] == 200


def test_a_body_that_does_not_arrive(live: Live) -> None:
    head = request("POST", "/servers").replace(b"Content-Length: 0", b"Content-Length: 500\r\nContent-Type: application/json")
    status, found = parsed(live.raw(head + b"{"))
    assert (status, found["code"]) == (400, "bad_http")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET /api/v1/me HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 9000 + b"\r\n\r\n", 431),
        (b"GET /api/v1/me HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: 1\r\n" % n for n in range(60)) + b"\r\n", 431),
        (b"POST /api/v1/servers HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET /api/v1/me HTTP/9.9\r\n\r\n", 400),
    ],
)
def test_what_is_no_proper_http_is_told_so(live: Live, data: bytes, status: int) -> None:
    answer = live.raw(data)
    assert b"application/problem+json" in answer
    assert parsed(answer)[0] == status
    assert parsed(answer)[1]["code"] == "bad_http"


def test_bodies_beyond_the_limit(live: Live) -> None:
    assert live.ask("POST", "/servers", {"x": "y" * 70000})[1]["code"] == "too_large"
    chunked = request("POST", "/servers").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked\r\nContent-Type: application/json")
    block = b"4000\r\n" + b"a" * 0x4000 + b"\r\n"
    assert parsed(live.raw(chunked + block * 5 + b"0\r\n\r\n"))[1]["code"] == "too_large"


def test_more_waiting_connections_than_one_user_may_have_are_closed(live: Live) -> None:
    with ExitStack() as stack:
        made = crowd(live, stack, 90, b"GET /api/v1/me HTTP/1.1\r\n")

        def closed() -> bool:
            count = 0
            for each in made:
                each.setblocking(False)
                try:
                    count += each.recv(1, socket.MSG_PEEK) == b""
                except BlockingIOError:
                    continue
                except ConnectionResetError:  # closed before what we sent was read
                    count += 1
            return count >= 20

        until(closed, seconds=8, what="closing what is too much")

    def answered() -> bool:
        try:
            return live.ask("GET", "/me")[0] == 200
        except ConnectionError:  # the user's places are just being given back
            return False

    until(answered, what="an answer for the same user once the crowd has gone")
