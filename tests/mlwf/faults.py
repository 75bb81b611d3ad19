"""A small HTTP proxy that breaks what it is told to break."""

import threading
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.error import HTTPError


@dataclass(frozen=True)
class Fault:
    """`cut`: only so many bytes of the body, then the connection is reset. `status`: this answer instead. `hang`: half a body, then
    silence. `body`: another body. `flip`: the first byte is another.
    """

    cut: int | None = None
    status: int | None = None
    hang: bool = False
    body: bytes | None = None
    flip: bool = False


class FaultyProxy:
    """Forwards GET to `upstream`; `rule` is asked for a fault with the path and how many times it has been asked for that path.

    `keep_host`: the client's Host goes on, as signed requests want it.
    """

    def __init__(self, upstream: str, rule: Callable[[str, int], Fault | None], *, keep_host: bool = False) -> None:
        self.seen: list[str] = []
        self.hanging = threading.Event()
        self.released = threading.Event()
        proxy = self
        dropped = {"Connection"} if keep_host else {"Connection", "Host"}

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: Any) -> None:
                pass

            def do_GET(self) -> None:
                fault = rule(self.path, proxy.seen.count(self.path))
                proxy.seen.append(self.path)
                status, headers, body = _fetch(upstream + self.path, {k: v for k, v in self.headers.items() if k not in dropped})
                proxy.answer(self, fault or Fault(), (status, headers, body))

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, handler: BaseHTTPRequestHandler, fault: Fault, answer: tuple[int, dict[str, str], bytes]) -> None:
        status, headers, body = answer
        body = fault.body if fault.body is not None else (bytes([body[0] ^ 1]) + body[1:] if fault.flip else body)
        handler.send_response(fault.status or status)
        for name, value in headers.items():
            if name.lower() not in {"content-length", "transfer-encoding", "connection", "date", "server"}:
                handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if fault.hang:
            handler.wfile.write(body[: len(body) // 2])
            self.hanging.set()
            self.released.wait(60)
        elif fault.cut is not None:
            handler.wfile.write(body[: fault.cut])
            handler.close_connection = True
        else:
            handler.wfile.write(body)

    def stop(self) -> None:
        self.released.set()
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()


def _fetch(url: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
    request = urllib.request.Request(url, headers=headers)  # noqa: S310  # the test's own servers
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as response:
            return response.status, dict(response.headers.items()), response.read()
    except HTTPError as error:
        with error:
            return error.code, dict(error.headers.items()), error.read()
