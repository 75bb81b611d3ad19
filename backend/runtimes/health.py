"""What a box says of itself, asked over HTTP where its clients reach it."""

from __future__ import annotations

import json
from http.client import HTTPConnection, HTTPException
from typing import Final

from backend.domain import BoxState, Observation
from backend.i18n import Told

HEALTH_SECONDS: Final = 2.0
_HEALTH_BYTES: Final = 16384
_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 (compared with, not bound)


def ask(server_id: str, address: tuple[str, int]) -> Observation:
    """What the box at ``address`` says of itself; a program that is not this server's box is said to be a stranger."""
    host, port = _EVERYWHERE.get(address[0], address[0]), address[1]
    connection = HTTPConnection(host, port, timeout=HEALTH_SECONDS)
    try:
        connection.request("GET", "/mlflow/-/health", headers={"Connection": "close"})
        answer = json.loads(connection.getresponse().read1(_HEALTH_BYTES))
    except (OSError, HTTPException) as error:
        return Observation(state=BoxState.SILENT, detail=Told("no answer on port {port} ({kind})", port=port, kind=type(error).__name__))
    except ValueError:
        answer = None
    finally:
        connection.close()
    if not isinstance(answer, dict) or answer.get("server_id") != server_id:
        return Observation(state=BoxState.SILENT, detail=Told("another program answers on port {port}", port=port), stranger=True)
    try:
        state = BoxState(answer["state"])
    except (KeyError, ValueError):
        return Observation(state=BoxState.SILENT, detail="its health answer is not understood")
    reason, version, config = answer.get("reason"), answer.get("mlflow_version"), answer.get("config")
    return Observation(
        state=state,
        detail=reason and str(reason),
        mlflow_version=version and str(version),
        config=config if isinstance(config, dict) else {},
    )
