"""On loopback everybody can connect; the demo's console answers its own user (and root) alone."""

import os
import socket
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from demo.console import REFUSAL, for_own_user, owner_of

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

TABLE = Path("/proc/net/tcp")
CLIENT = "exec 3<>/dev/tcp/127.0.0.1/$0; echo up; read -r -u 3"


def _app(_environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
    start_response("200 OK", [])
    return [b"the console"]


def _ask(connection: socket.socket) -> tuple[str, bytes]:
    seen: list[str] = []

    def start_response(status: str, _headers: list[tuple[str, str]], _error: object = None) -> object:
        seen.append(status)
        return None

    body = b"".join(for_own_user(_app)({"gunicorn.socket": connection}, start_response))  # type: ignore[arg-type]
    return seen[0], body


def _connected(uid: int) -> tuple[int | None, str, bytes]:
    """The owner that is seen, and the answer that is given, when a process of that uid connects."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with subprocess.Popen(["bash", "-c", CLIENT, str(port)], stdout=subprocess.PIPE, user=uid, cwd="/") as client:
            connection, address = listener.accept()
            with connection:
                assert client.stdout is not None
                client.stdout.readline()
                return owner_of(address, connection.getsockname(), TABLE.read_text()), *_ask(connection)


def test_the_user_who_runs_it_is_answered() -> None:
    assert _connected(os.getuid()) == (os.getuid(), "200 OK", b"the console")


@pytest.mark.skipif("os.getuid() != 0", reason="only root can become another user")
def test_another_user_of_the_machine_is_refused() -> None:
    assert _connected(65534) == (65534, "403 Forbidden", REFUSAL)


def test_a_connection_that_is_being_closed_proves_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        connection, address = listener.accept()
        with connection:
            client.close()
            assert owner_of(address, connection.getsockname(), TABLE.read_text()) is None
