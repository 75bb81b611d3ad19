"""A forward proxy such as sites have before the internet: it asks for a login, passes connections on and notes whose they are."""

import base64
import contextlib
import re
import socket
import socketserver
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import quote

_ASKED = re.compile(rb"CONNECT (?P<tunnel>[^ :]+):(?P<port>\d+) |[A-Z]+ http://(?P<name>[^ :/]+)(?::(?P<its>\d+))?/")
_LOGIN = re.compile(rb"(?im)^Proxy-Authorization: *Basic +([A-Za-z0-9+/=]+)\r$")
_SECONDS = 30.0
_PIECE = 1 << 16


class ForwardProxy(socketserver.ThreadingTCPServer):
    """`asked`: names and ports (`pypi.org:443`) of the connections so far. `known`: names that it alone knows, and where they are.

    What a connection's first request by http names is where the rest of it goes, too: apt has a connection for each host.
    """

    daemon_threads = True
    user, password = "site", "p@ss:word"

    def __init__(self, address: str, known: Mapping[str, tuple[str, int]]) -> None:
        super().__init__((address, 0), _Connection)
        self.known = known
        self.asked: Counter[str] = Counter()
        self._alone = threading.Lock()

    @property
    def url(self) -> str:
        """For http_proxy and https_proxy."""
        address, port = self.socket.getsockname()
        return f"http://{self.user}:{quote(self.password, safe='')}@{address}:{port}"

    @property
    def words(self) -> tuple[str, ...]:
        """What is told of it, and is to be found nowhere else."""
        return self.url, self.password, quote(self.password, safe="")

    def lets_in(self, head: bytes) -> bool:
        """Whether a request's head has the login."""
        found = _LOGIN.search(head)
        return found is not None and base64.b64decode(found[1]) == f"{self.user}:{self.password}".encode()

    def note(self, name: str, port: int) -> tuple[str, int]:
        """A connection begins; where it goes."""
        asked = f"{name}:{port}"
        with self._alone:
            self.asked[asked] += 1
        return self.known.get(asked, (name, port))


class _Connection(socketserver.StreamRequestHandler):
    server: ForwardProxy

    def handle(self) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = self.rfile.readline()
            if not line:
                return  # a client that only looked whether somebody listens
            head += line
        match = _ASKED.match(head)
        if match is None:
            self.wfile.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
            return
        if not self.server.lets_in(head):
            self.wfile.write(b'HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm="site"\r\n')
            self.wfile.write(b"Content-Length: 0\r\nConnection: close\r\n\r\n")
            return
        name, port = match["tunnel"] or match["name"], match["port"] or match["its"] or b"80"
        try:
            upstream = socket.create_connection(self.server.note(name.decode(), int(port)), _SECONDS)
        except OSError:
            self.wfile.write(b"HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\n\r\n")
            return
        with upstream:
            upstream.settimeout(None)
            if match["tunnel"]:
                self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                upstream.sendall(head)
            out = threading.Thread(target=_copy, args=(lambda: self.rfile.read1(_PIECE), upstream), daemon=True)
            out.start()
            _copy(lambda: upstream.recv(_PIECE), self.connection)
            out.join()


def _copy(read: Callable[[], bytes], to: socket.socket) -> None:
    """Until one side ends, or goes away in the middle, as clients and servers may."""
    with contextlib.suppress(OSError):
        while piece := read():
            to.sendall(piece)
    with contextlib.suppress(OSError):
        to.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def forward_proxy(address: str, known: Mapping[str, tuple[str, int]]) -> Iterator[ForwardProxy]:
    """A proxy that listens on that address while the context lasts."""
    with ForwardProxy(address, known) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()
