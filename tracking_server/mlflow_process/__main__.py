"""Started by the guard: standard input is the plan, descriptor 3 the listening socket, descriptor 4 the guard's ear."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING

from tracking_server.mlflow_process import database, environment
from tracking_server.mlflow_process.plan import Plan, environment_directory, read_plan

if TYPE_CHECKING:
    import uvicorn

_LISTENER, _STATUS = 3, 4
_PR_SET_PDEATHSIG = 1


def main() -> int:
    plan = read_plan(sys.stdin.buffer.read())
    _die_with(plan.guard)
    for descriptor in (_LISTENER, _STATUS):
        os.set_inheritable(descriptor, False)
    os.umask(0o077)
    os.chdir(plan.box.tmp)
    try:
        database.prepare(plan, environment_directory())
    except database.DatabaseError as error:
        _tell({"reason": str(error)})
        return 1
    environment.apply(plan)
    _serve(plan)
    return 0


def _die_with(guard: int) -> None:
    """Nothing of a box outlives its guard, however that ended."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != guard:
        sys.exit(1)


def _tell(word: dict[str, str]) -> None:
    os.write(_STATUS, json.dumps(word).encode() + b"\n")


def _config(plan: Plan) -> uvicorn.Config:
    import uvicorn

    from tracking_server.mlflow_process.application import application

    return uvicorn.Config(
        application(plan),
        log_level="warning",
        access_log=False,
        backlog=4096,
        proxy_headers=False,
        server_header=False,
        h11_max_incomplete_event_size=128 * 1024,
    )


def _serve(plan: Plan) -> None:
    # Importing makes hundreds of thousands of objects that stay: the collector would look at them over and over, now and later.
    gc.disable()
    config = _config(plan)
    from tracking_server.mlflow_process.server import SleepyServer

    gc.freeze()
    gc.enable()
    settings = plan.settings
    server = SleepyServer(
        config,
        socket.socket(fileno=_LISTENER),
        idle_seconds=settings.idle_seconds,
        drain_seconds=settings.drain_seconds,
        told=lambda state: _tell({"state": state}),
    )
    server.run_until_idle()


sys.exit(main())
