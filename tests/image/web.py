"""A web server on loopback that gives files in parts, and breaks what it is told to break."""

import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Web:
    """`files`: by path; `redirects`: path to address; `ranges`: whether parts are given; `cuts`: so many answers break off half-way;
    `changes`: after so many answers the file is another; `asked`: path and Range of each request."""

    files: Mapping[str, bytes]
    redirects: Mapping[str, str] = field(default_factory=dict)
    ranges: bool = True
    cuts: int = 0
    changes: int = 1 << 30
    asked: list[tuple[str, str]] = field(default_factory=list)

    def start(self) -> "Web":
        web = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: Any) -> None:
                pass

            def do_GET(self) -> None:
                web.answer(self)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()
        return self

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers.get("Range", "")
        self.asked.append((handler.path, asked))
        path = handler.path.partition("?")[0]
        if path in self.redirects:
            self._send(handler, 302, b"", {"Location": self.redirects[path]})
            return
        if path not in self.files:
            self._send(handler, 404, b"no such file", {})
            return
        data = self.files[path] if len(self.asked) <= self.changes else self.files[path][::-1]
        headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"'}
        if handler.headers.get("If-Match", headers["ETag"]) != headers["ETag"]:
            self._send(handler, 412, b"<html>", {})  # as nginx, Apache and S3 do
            return
        if asked and self.ranges:
            first, _dash, last = asked.removeprefix("bytes=").partition("-")
            part = data[int(first) : int(last) + 1]
            self._send(handler, 206, part, {**headers, "Content-Range": f"bytes {first}-{last}/{len(data)}"})
        else:
            self._send(handler, 200, data, headers if self.ranges else {})

    def _send(self, handler: BaseHTTPRequestHandler, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        handler.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            handler.send_header(name, value)
        handler.end_headers()
        if len(body) > 1000 and self.cuts > 0:
            self.cuts -= 1
            handler.wfile.write(body[: len(body) // 2])
            handler.close_connection = True
        else:
            handler.wfile.write(body)

    def stop(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()
