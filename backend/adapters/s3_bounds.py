"""Bounds on what an object store answers. Its address may be a user's choice, and boto3's patience has no end: it reads an answer whole,
however long it is, and its time-outs begin anew with each byte, each request and each address of a name.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Final

from botocore.exceptions import BotoCoreError, HTTPClientError
from urllib3.connection import HTTPConnection
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError
from urllib3.util.connection import allowed_gai_family

ANSWER_BYTES: Final = 8 * 1024 * 1024
"""A list of buckets or of one object is far below this."""


class EndlessAnswerError(BotoCoreError):
    """The answer is larger than any that is expected."""

    fmt = "the answer does not end"


class Deadline:
    """At the end of the time, the connection that was made last is shut, whoever waits for it, and none is made any more."""

    def __init__(self) -> None:
        self.is_over = False
        self._lock = threading.Lock()
        self._connection: socket.socket | None = None

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """From now on so many seconds."""
        self.is_over = False
        timer = threading.Timer(seconds, self._end)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()

    def watch(self, connection: socket.socket) -> None:
        """It takes the place of the one before. A handle of our own to it is kept: TLS takes the socket itself over."""
        with self._lock:
            self._let_go()
            self._connection = connection.dup()
            if self.is_over:
                self._shut()

    def close(self) -> None:
        """Give the handle back."""
        with self._lock:
            self._let_go()

    def _end(self) -> None:
        with self._lock:
            self.is_over = True
            self._shut()

    def _shut(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(OSError):  # the other side was first
                self._connection.shutdown(socket.SHUT_RDWR)

    def _let_go(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def bound_answers(client: Any, deadline: Deadline) -> None:
    """Make the client give up on answers beyond the bounds. Bodies of objects are streams, and read by whoever asked for them."""
    session = client._endpoint.http_session  # noqa: SLF001 (botocore has no public way to send by hand)
    pools = session._pool_classes_by_scheme  # noqa: SLF001 (nor to choose how it connects)
    for scheme, pool in pools.items():
        connection = type("Connection", (_Connection, pool.ConnectionCls), {"deadline": deadline})
        pools[scheme] = type("Pool", (pool,), {"ConnectionCls": connection})

    def send(request: Any, **_: object) -> Any:
        if request.stream_output:
            return None
        request.stream_output = True
        answer = session.send(request)
        answer.raw = _Bounded(answer.raw)
        return answer

    client.meta.events.register("before-send.s3", send)


class _Connection(HTTPConnection):
    """A connection under a deadline."""

    deadline: ClassVar[Deadline]

    def _new_conn(self) -> socket.socket:
        """As urllib3 does, but one address at a time: it tries all that a name has, each with the whole patience."""
        name = self._dns_host
        failed: HTTPError = ConnectTimeoutError(self, "the time is over")
        try:
            for address in self._addresses():
                if self.deadline.is_over:
                    break
                self._dns_host = address
                try:
                    made = super()._new_conn()
                except (NewConnectionError, ConnectTimeoutError) as error:
                    failed = error
                else:
                    self.deadline.watch(made)
                    return made
        finally:
            self._dns_host = name
        raise failed

    def _addresses(self) -> list[str]:
        """Of the host, or its name alone where it has none: urllib3 then says what is wrong."""
        try:
            found = socket.getaddrinfo(self._dns_host.strip("[]"), self.port, allowed_gai_family(), socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return [self._dns_host]
        return [str(place[4][0]) for place in found]


class _Bounded:
    """An answer's body, for botocore to read."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def stream(self) -> Iterator[bytes]:
        """Chunks until the end. Error: ``EndlessAnswerError``."""
        size = 0
        while chunk := self._read():
            yield chunk
            size += len(chunk)
            if size > ANSWER_BYTES:
                self._raw.close()
                raise EndlessAnswerError

    def _read(self) -> bytes:
        try:
            chunk: bytes = self._raw.read1(65536)
        except HTTPError as error:  # botocore wraps urllib3's errors where it sends; here we do
            raise HTTPClientError(error=error) from error
        return chunk
