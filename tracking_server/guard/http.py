"""A small HTTP/1.1 server for requests without a body, or with a short one, on the guard's loop."""

from __future__ import annotations

import errno
import json
import socket
from collections.abc import Callable, Mapping
from typing import NamedTuple

from tracking_server.guard.log import tell_failure
from tracking_server.guard.loop import READ, WRITE, Loop, Timer

HEAD_BYTES = 256 * 1024  # more than nginx lets through
BODY_BYTES = 16 * 1024  # likewise, for what the guard itself takes
DRAIN_SECONDS = 30.0
REST_SECONDS = 0.1
"""Until connections are accepted again, after the guard or its machine had no descriptor or memory for one more."""
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_PHRASES = {
    200: "OK",
    303: "See Other",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Content Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
    507: "Insufficient Storage",
}


class Request(NamedTuple):
    """A request; header names in lower case, repeated headers joined by commas."""

    path: str
    headers: Mapping[str, str]
    method: str = "GET"
    body: bytes = b""


class Response(NamedTuple):
    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of_json(cls, document: object, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> Response:
        return cls(status, json.dumps(document).encode() + b"\n", (("Content-Type", "application/json"), *headers))


Respond = Callable[[Response], None]
Handler = Callable[[Request, Respond], None]


def parse_head(head: bytes) -> Request:
    """Raises ValueError for what is not HTTP."""
    lines = head.decode("latin-1").split("\r\n")
    method, target, version = lines[0].split(" ")
    if not method or not version.startswith("HTTP/1."):
        raise ValueError("not HTTP/1")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon:
            raise ValueError("a header without a colon")
        name = name.lower()
        headers[name] = f"{headers[name]},{value.strip()}" if name in headers else value.strip()
    return Request(target.partition("?")[0], headers, method)


def body_length(request: Request) -> int:
    """How many bytes follow the head. Raises ValueError for what is no length; nginx always gives one."""
    text = request.headers.get("content-length", "0")
    if not text.isdecimal() or "transfer-encoding" in request.headers:
        raise ValueError("a body of unknown length")
    return int(text)


class Connection:
    """One accepted connection: a head in, an answer out, and again. `once`: answer one request, drop its body, close."""

    def __init__(self, loop: Loop, sock: socket.socket, handler: Handler, *, once: bool = False) -> None:
        self._loop = loop
        self._sock = sock
        self._handler = handler
        self._once = once
        self._input = b""
        self._output = b""
        self._waiting = False  # for the handler's answer
        self._writing = False  # watched for room to write, not for input
        self._drain_timer: Timer | None = None
        sock.setblocking(False)
        loop.watch(sock, READ, self._readable)

    def _readable(self) -> None:
        try:
            data = self._sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close()
            return
        if self._drain_timer is not None:
            return  # a body that nobody reads
        self._input += data
        if not self._waiting:
            self._next_request()

    def _next_request(self) -> None:
        head, end, rest = self._input.partition(b"\r\n\r\n")
        if not end:
            if len(self._input) > HEAD_BYTES:
                self._close()
            return
        try:
            request = parse_head(head)
            length = 0 if self._once else body_length(request)
        except ValueError:
            self._refuse(400)
            return
        if length > BODY_BYTES:
            self._refuse(413)
        elif len(rest) >= length:
            self._input = b"" if self._once else rest[length:]
            self._waiting = True
            self._handle(request._replace(body=rest[:length]))

    def _handle(self, request: Request) -> None:
        try:
            self._handler(request, self._respond)
        except Exception:  # noqa: BLE001
            tell_failure()  # of one request, which must not end the server for all others
            if self._waiting:
                self._refuse(500)

    def _refuse(self, status: int) -> None:
        """An answer after which nothing of this connection can be understood."""
        self._once, self._input = True, b""
        self._respond(Response(status))

    def _respond(self, response: Response) -> None:
        if self._sock.fileno() < 0:
            return  # the client went away meanwhile
        self._waiting = False
        lines = [f"HTTP/1.1 {response.status} {_PHRASES[response.status]}", f"Content-Length: {len(response.body)}"]
        lines += [f"{name}: {value}" for name, value in response.headers]
        if self._once:
            lines.append("Connection: close")
        self._output += "\r\n".join([*lines, "", ""]).encode("latin-1") + response.body
        self._writable()

    def _writable(self) -> None:
        try:
            sent = self._sock.send(self._output)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._close()
            return
        self._output = self._output[sent:]
        if self._output:
            self._writing = True
            self._loop.watch(self._sock, WRITE, self._writable)
            return
        if self._writing:
            self._writing = False
            self._loop.watch(self._sock, READ, self._readable)
        if self._once:
            self._drain()
        elif self._input:
            self._next_request()

    def _drain(self) -> None:
        """Closing at once would reset the connection under a peer that still sends, and it would never read our answer."""
        self._drain_timer = self._loop.later(DRAIN_SECONDS, self._close)
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._close()

    def _close(self) -> None:
        if self._drain_timer is not None:
            self._drain_timer.cancel()
        if self._sock.fileno() >= 0:
            self._loop.unwatch(self._sock)
            self._sock.close()


def accept_all(loop: Loop, listener: socket.socket, handler: Handler, *, once: bool = False) -> None:
    """Take every connection that waits now. `listener` is watched for them."""
    while True:
        try:
            sock, _ = listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno in _NO_ROOM:
                loop.rest(listener, REST_SECONDS)
            return  # that, or a peer that is gone: the next readiness brings us back
        Connection(loop, sock, handler, once=once)
