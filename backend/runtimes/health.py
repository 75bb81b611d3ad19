"""What a box says of itself, asked over HTTP where its clients reach it."""

from __future__ import annotations

import json
import socket
import time
from typing import Final

from backend.domain import BoxState, Observation
from backend.i18n import Told

HEALTH_SECONDS: Final = 2.0
"""For the whole answer, however it comes: whoever looks at a box must be free to end it, whatever code in it does."""
_HEALTH_BYTES: Final = 16384
_WORDS: Final = 500
_REQUEST: Final = b"GET /mlflow/-/health HTTP/1.0\r\n\r\n"
_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 (compared with, not bound)


def ask(server_id: str, address: tuple[str, int]) -> Observation:
    """What the box at ``address`` says of itself; a program that is not this server's box is said to be a stranger."""
    host, port = _EVERYWHERE.get(address[0], address[0]), address[1]
    try:
        answer = json.loads(_body(host, port))
    except OSError as error:
        return Observation(state=BoxState.SILENT, detail=Told("no answer on port {port} ({kind})", port=port, kind=type(error).__name__))
    except (ValueError, RecursionError):  # nested however deep
        answer = None
    if not isinstance(answer, dict) or answer.get("server_id") != server_id:
        return Observation(state=BoxState.SILENT, detail=Told("another program answers on port {port}", port=port), stranger=True)
    try:
        state = BoxState(answer["state"])
    except (KeyError, ValueError):
        return Observation(state=BoxState.SILENT, detail="its health answer is not understood")
    reason, version, config = answer.get("reason"), answer.get("mlflow_version"), answer.get("config")
    return Observation(
        state=state,
        detail=reason and _words(reason),
        mlflow_version=version and _words(version),
        config=config if isinstance(config, dict) else {},
    )


def _words(said: object) -> str:
    """For the registry, which takes no half of a character; and no longer than a guard's reasons are."""
    return str(said)[:_WORDS].encode(errors="replace").decode()


def _body(host: str, port: int) -> bytes:
    """What follows the answer's head. Error: ``OSError``, also where nothing came that is HTTP. More than a box says is cut off."""
    until = time.monotonic() + HEALTH_SECONDS
    with socket.create_connection((host.strip("[]"), port), HEALTH_SECONDS) as connection:
        connection.sendall(_REQUEST)
        held = b""
        while len(held) < _HEALTH_BYTES:
            connection.settimeout(max(0.001, until - time.monotonic()))
            data = connection.recv(_HEALTH_BYTES)
            if not data:
                break
            held += data
    head, end, body = held.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/") or not end:
        raise ConnectionError
    return body
