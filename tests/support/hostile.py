"""A web server of a user's own, as anybody may run one behind /rnode: it serves what it was told to, and notes what it was sent."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from demo.ports import LOOPBACK


@dataclass
class Hostile:
    """`pages`: by path, a page's headers and text; every other path is an empty page. `heard`: the headers of each request."""

    port: int
    pages: dict[str, tuple[Mapping[str, str], str]] = field(default_factory=dict)
    heard: list[dict[str, str]] = field(default_factory=list)

    def path(self, name: str = "page") -> str:
        """Where a portal shows that page."""
        return f"/rnode/{LOOPBACK}/{self.port}/{name}"


@contextmanager
def hostile_server() -> Iterator[Hostile]:
    """One that runs."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.heard.append(dict(self.headers.items()))
            headers, text = made.pages.get(self.path, ({}, "<!doctype html><p>a page"))
            self.send_response(200)
            for name, value in {"Content-Type": "text/html", "Content-Length": str(len(text)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_args: object) -> None:
            """`heard` has it."""

    with ThreadingHTTPServer((LOOPBACK, 0), Handler) as server:
        made = Hostile(server.server_port)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield made
        server.shutdown()
