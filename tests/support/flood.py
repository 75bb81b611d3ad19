"""Wrong passwords for one user, more than 500 of them a second."""

import contextlib
import http.client
import socket
import threading
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from demo.ports import LOOPBACK
from tests.support.box import Box, until

RATE = 500.0
"""What a box must bear a second."""
CONNECTIONS = 16
"""About half of them wait for bcrypt; the others are answered at once."""


class Flood:
    """Knocks with another password each time. `statuses`: how it was answered."""

    def __init__(self, box: Box, user: str) -> None:
        self.statuses: Counter[int] = Counter()
        self._user = user
        self._connections = [http.client.HTTPConnection(LOOPBACK, box.port, timeout=60) for _ in range(CONNECTIONS)]
        self._enough = threading.Event()
        self._lock = threading.Lock()
        self._sent, self._began = 0, time.monotonic()

    @property
    def answered(self) -> int:
        with self._lock:
            return self.statuses.total()

    def knock_on(self, place: int) -> None:
        """By the connection of that place, to the end of the flood."""
        connection = self._connections[place]
        try:
            while not self._enough.is_set():
                status = self._knock(connection, self._next())
                with self._lock:
                    self.statuses[status] += 1
        except (OSError, http.client.HTTPException):
            if not self._enough.is_set():  # else it was waiting when we hung up
                raise
        finally:
            connection.close()

    def end(self) -> None:
        """Nobody waits for what still waits for bcrypt."""
        self._enough.set()
        for connection in self._connections:
            with contextlib.suppress(OSError):  # the other side was quicker
                if connection.sock is not None:
                    connection.sock.shutdown(socket.SHUT_RDWR)

    def _next(self) -> int:
        """The next one's number, when it is its time: a fifth more than must be borne, so that those who were late can catch up."""
        with self._lock:
            self._sent += 1
            number = self._sent
        self._enough.wait(max(0.0, self._began + number / (RATE * 1.2) - time.monotonic()))
        return number

    def _knock(self, connection: http.client.HTTPConnection, number: int) -> int:
        login = b64encode(f"{self._user}:wrong {number}".encode()).decode()
        connection.request("GET", "/mlflow/-/info", headers={"Authorization": f"Basic {login}"})
        answer = connection.getresponse()
        answer.read()
        return answer.status


@contextlib.contextmanager
def flooded(box: Box, user: str) -> Iterator[Flood]:
    """It is under way while the context lasts. Raises what a connection failed with."""
    flood = Flood(box, user)
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        knocking = [pool.submit(flood.knock_on, place) for place in range(CONNECTIONS)]
        try:
            until(lambda: flood.answered > RATE / 2, what="the flood")
            yield flood
        finally:
            flood.end()
    for each in knocking:
        each.result()
