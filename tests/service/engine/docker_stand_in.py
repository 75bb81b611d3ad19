"""A program that stands for Docker's daemon, on a socket of its own: it can hang, refuse, be late, and end while it answers."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

UNSTOPPABLE = "cannot stop container: abc: tried to kill container, but did not receive an exit event"
ROW = {
    "Id": "abc",
    "Names": ["/aihub-x-gate"],
    "Labels": {"org.aihub.server": "k3v9x2m7q4ab", "org.aihub.role": "gate"},
    "State": "running",
    "Status": "Up",
}


@dataclass
class Refusal:
    """The daemon's answer to the next ``times`` questions of that method and path."""

    method: str
    part: str
    status: int
    message: str
    times: int = 1_000_000


class Daemon(socketserver.ThreadingUnixStreamServer):
    """Says its version, its networks, and its containers unless it `hangs`. The first listings of networks are answered `together`."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, path: Path) -> None:
        self.hangs, self.listings = threading.Event(), 0
        self.rows, self.removed = [ROW], list[str]()
        self.refusals, self.unforced = list[Refusal](), set[str]()
        self.networks, self.creates = dict[str, dict[str, Any]](), list[str]()
        self.together, self.listings_together, self.counting = threading.Barrier(1), 0, threading.Lock()
        self.archive, self.breaks_off = b"", False
        self.api, self.about = "1.41", dict[str, object]()
        self.ended = threading.Event()
        super().__init__(str(path), Answer)

    def refuse(self, *refusals: Refusal) -> None:
        self.refusals = list(refusals)

    def wait_for_the_others(self) -> None:
        with self.counting:
            self.listings_together -= 1
            alone = self.listings_together < 0
        if not alone:
            self.together.wait(10)


class Answer(BaseHTTPRequestHandler):
    server: Daemon
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        asked = self.path.split("/")[1]
        found: object = {"ApiVersion": self.server.api, "Config": {"Tty": False}}
        if asked not in {f"v{self.server.api}", "version"}:
            self._say(
                json.dumps({"message": f"client version {asked[1:]} is too old. Minimum supported API version is 1.44"}).encode(), 400
            )
            return
        if self._refused():
            return
        if "/archive?" in self.path:
            self._say_archive()
            return
        if "/networks?" in self.path:
            self.server.wait_for_the_others()
            found = list(self.server.networks.values())
        elif "/networks/" in self.path:
            found = {"Id": self.path.rpartition("/")[2]}
        elif "/images/json" in self.path:
            found = [{"Id": "sha256:abc", "Created": 1}]
        elif self.path.endswith("/info"):
            found = self.server.about
        elif "/containers/json" in self.path:
            self.server.listings += 1
            if self.server.hangs.is_set():
                self.server.ended.wait(60)
            found = self.server.rows
        self._say(json.dumps(found).encode())

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"null")
        if self._refused():
            return
        if "/stop?" in self.path:
            self._say(json.dumps({"message": UNSTOPPABLE}).encode(), 500)
            return
        name = asked["Name"]
        with self.server.counting:
            self.server.creates.append(name)
            taken = name in self.server.networks
            self.server.networks.setdefault(name, {**asked, "Id": name})
        self._say(
            json.dumps({"message": f"network with name {name} already exists"} if taken else {"Id": name}).encode(), 409 if taken else 201
        )

    def do_DELETE(self) -> None:
        if self._refused():
            return
        path, _, query = self.path.partition("?")
        self.server.removed.append(path.rpartition("/")[2])
        if "force=False" in query:
            self.server.unforced.add(self.server.removed[-1])
        self._say(b"")

    def _refused(self) -> bool:
        for refusal in self.server.refusals:
            if refusal.method == self.command and refusal.part in self.path and refusal.times:
                refusal.times -= 1
                self._say(json.dumps({"message": refusal.message}).encode(), refusal.status)
                return True
        return False

    def _say_archive(self) -> None:
        """A daemon that ends in the middle closes the connection without the last chunk, which is empty."""
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(f"{len(self.server.archive):x}\r\n".encode() + self.server.archive + b"\r\n")
        if not self.server.breaks_off:
            self.wfile.write(b"0\r\n\r\n")
        self.close_connection = True

    def _say(self, body: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the library's own word)
        """Nothing on the test's output."""


@contextmanager
def stand_in(path: Path) -> Iterator[Daemon]:
    with Daemon(path) as running:
        threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
        yield running
        running.ended.set()
        running.shutdown()
