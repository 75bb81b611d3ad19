"""gunicorn as the API needs it: closed to slow and greedy clients, with the connection at hand for its credentials."""

from __future__ import annotations

import json
import logging
import socket
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Final

from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]
from gunicorn.glogging import Logger  # type: ignore[import-untyped]
from gunicorn.http.errors import LimitRequestHeaders, LimitRequestLine  # type: ignore[import-untyped]
from gunicorn.workers.gthread import TConn, ThreadWorker  # type: ignore[import-untyped]

from backend.api.identity import peer_uid
from backend.api.problems import CONTENT_TYPE, document
from backend.errors import ServiceError

log = logging.getLogger(__name__)
ARRIVAL_SECONDS: Final = 10.0
"""A request must have arrived after this long; the answer may take longer."""
_BEHIND_NGINX: Final = -1
MOST_WAITING: Final = 64
"""Connections of one user that wait in one worker; more are closed."""


class FairWorker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's threaded worker gives a thread to each connection that has sent a byte, for as long as it likes. Here no user gets more
    than half of the threads at a time (the user's other connections wait), and what has not arrived in time is cut off: so nobody can
    keep others from being answered.

    All of it runs in the worker's main thread, as gunicorn's own bookkeeping does.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._places = max(1, self.cfg.threads // 2)
        self._active: Counter[int] = Counter()
        self._began: dict[TConn, float] = {}
        self._waiting: dict[int, deque[TConn]] = {}

    def enqueue_req(self, conn: TConn) -> None:
        """Give the connection a thread, or a place in its user's queue."""
        uid = _uid(conn)
        if self._active[uid] < self._places_of(uid):
            self._begin(uid, conn)
            return
        queue = self._waiting.setdefault(uid, deque())
        if len(queue) < MOST_WAITING:
            queue.append(conn)
        else:
            self.nr_conns -= 1
            conn.close()

    def finish_request(self, conn: TConn, fs: Any) -> None:
        """A thread is free again: the user's next connection gets it."""
        uid = _uid(conn)
        self._began.pop(conn, None)
        self._active[uid] -= 1
        super().finish_request(conn, fs)
        queue = self._waiting.get(uid)
        if queue and self._active[uid] < self._places_of(uid):
            self._begin(uid, queue.popleft())
        if not queue:
            self._waiting.pop(uid, None)
        if not self._active[uid]:
            del self._active[uid]

    def murder_pending(self) -> None:
        """Gunicorn's once-a-second tidying, and ours: who is too slow reads no more, so its thread comes back."""
        super().murder_pending()
        limit = time.monotonic() - ARRIVAL_SECONDS
        for conn in [conn for conn, began in self._began.items() if began < limit]:
            self._began.pop(conn)
            try:
                conn.sock.shutdown(socket.SHUT_RD)
            except OSError:
                continue  # gone already

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: BaseException) -> None:  # noqa: ARG002 (gunicorn's signature)
        """What is no proper HTTP gets a problem document too."""
        status, error = _bad_http(exc)
        if not isinstance(exc, OSError):
            log.info("refused a request that is no proper HTTP: %s", type(exc).__name__)
        body = json.dumps({**document(error, "en"), "status": status}).encode()
        head = f"HTTP/1.1 {status} Refused\r\nConnection: close\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {len(body)}\r\n\r\n"
        try:
            client.sendall(head.encode() + body)
        except OSError:
            log.debug("the client went before it was told")

    def _places_of(self, uid: int) -> int:
        """Behind the TLS nginx all come from one peer: there nginx limits each address, and waits for slow ones."""
        return int(self.cfg.threads) if uid == _BEHIND_NGINX else self._places

    def _begin(self, uid: int, conn: TConn) -> None:
        self._active[uid] += 1
        self._began[conn] = time.monotonic()
        super().enqueue_req(conn)


class HttpServer(BaseApplication):  # type: ignore[misc]
    """gunicorn on a socket that listens already, with our settings and no other source of them. ``make_app`` is called in each worker,
    after the fork.
    """

    def __init__(self, *, listener: int, workers: int, threads: int, make_app: Callable[[], Any]) -> None:
        self._make_app = make_app
        self._options = {
            "bind": f"fd://{listener}",
            "workers": workers,
            "threads": threads,
            "worker_class": FairWorker,
            "umask": 0o077,
            # A kept connection that is closed in the moment of its next use leaves a change without an answer, and nobody knows if it was
            # made; `murder_pending` closes those whose last answer took long.
            "keepalive": 0,
            "timeout": 60,
            "graceful_timeout": 8,
            "limit_request_line": 4094,
            "limit_request_fields": 40,
            "limit_request_field_size": 4096,
            # nothing that a client sends says who it is or where it came from
            "forwarder_headers": "",
            "secure_scheme_headers": {},
            "forwarded_allow_ips": "",
            "header_map": "drop",
            "proxy_protocol": False,
            "control_socket_disable": True,
            "accesslog": None,
            "logger_class": _Log,
            "when_ready": _leave_the_socket,
        }
        super().__init__()

    def load_config(self) -> None:
        """Ours."""
        for name, value in self._options.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """The WSGI application."""
        return self._make_app()


def _leave_the_socket(arbiter: Any) -> None:
    """The socket's file is the supervisor's: gunicorn removes none where it thinks that systemd made it."""
    arbiter.systemd = True


class _Log(Logger):  # type: ignore[misc]
    """gunicorn's own lines go where all others go."""

    def setup(self, cfg: Any) -> None:  # noqa: ARG002 (gunicorn's signature)
        self.error_log = logging.getLogger("gunicorn")
        self.access_log = logging.getLogger("gunicorn.access")

    def reopen_files(self) -> None:
        """There are none."""

    def close_on_exec(self) -> None:
        """There are none."""


def _uid(conn: TConn) -> int:
    """Known while the connection is open, and kept, since it is asked for again after its end."""
    if not hasattr(conn, "uid"):
        conn.uid = peer_uid(conn.sock) if conn.sock.family == socket.AF_UNIX else _BEHIND_NGINX
    return int(conn.uid)


def _bad_http(exc: BaseException) -> tuple[int, ServiceError]:
    if isinstance(exc, LimitRequestHeaders):
        return 431, ServiceError("bad_http", why="its headers are too large or too many")
    if isinstance(exc, LimitRequestLine):
        return 414, ServiceError("bad_http", why="its first line is too long")
    return 400, ServiceError("bad_http", why="it cannot be parsed")
