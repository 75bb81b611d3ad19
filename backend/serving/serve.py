"""The service's parts as processes, started by the supervisor.

``python -m backend.serving.serve api|munge|token|metrics FILE FD``, ``… reconciler FILE``.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any, Final

from backend import log as logs
from backend.settings import Settings, SettingsError
from backend.settings_file import load

log = logging.getLogger("backend.serving.serve")  # this module is the program itself, whose own name is another
_PR_SET_PDEATHSIG: Final = 1


def serve_api(settings: Settings, listener: int, part: str) -> None:
    """Answer requests on the socket that is listening at ``listener``, until SIGTERM. Its part's name says how callers prove who they
    are.
    """
    from backend.api.app import create_app
    from backend.serving.http_server import HttpServer
    from backend.serving.wiring import make_identity, make_service

    def make_app() -> Any:
        service = make_service(settings)
        return create_app(service, make_identity(part, settings, service.registry))

    HttpServer(listener=listener, workers=settings.workers, threads=settings.threads, make_app=make_app).run()


def serve_metrics(settings: Settings, listener: int) -> None:
    """Tell the service's numbers to whoever asks on that socket, until SIGTERM."""
    from backend.api.metrics import create_app
    from backend.serving.http_server import HttpServer
    from backend.serving.wiring import make_collectors

    HttpServer(listener=listener, workers=1, threads=2, make_app=lambda: create_app(make_collectors(settings))).run()


def serve_reconciler(settings: Settings) -> None:
    """Reconcile until SIGTERM."""
    from backend.serving.wiring import make_reconciler

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    make_reconciler(settings).run(stop)


def main(argv: list[str]) -> int:
    """One part, by name."""
    name, file, *rest = argv
    _end_with_the_supervisor()
    os.umask(0o077)  # nothing that the service makes is for others, whatever makes it
    logs.configure()
    try:
        settings = load(Path(file))
        logs.configure(settings.log_format)
        if name == "reconciler":
            serve_reconciler(settings)
        elif name == "metrics":
            serve_metrics(settings, int(rest[0]))
        else:
            serve_api(settings, int(rest[0]), name)
    except SettingsError as error:
        for problem in error.problems:
            log.error("%s", problem)  # noqa: TRY400 (a traceback says nothing here)
        return 2
    return 0


def _end_with_the_supervisor() -> None:
    """Signals are let through again (the supervisor waits for them blocked), and the supervisor's death is one of them."""
    supervisor = os.getppid()
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != supervisor:  # it died before we could ask
        sys.exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
