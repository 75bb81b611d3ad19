"""What `pull` of Apptainer and SingularityCE asks of a library (library://…), on loopback: a stand-in, since no such server runs here.

Written after the requests of Apptainer 1.4.5 and SingularityCE 4.1.1: a remote endpoint's list of services, a token's state, the library's
version, an image's record, and its file, to which it redirects, in parts. It has no OCI registry beside it, as Sylabs' own does.
"""

import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.support.apptainer import Ground

TOKEN = "of-a-member" * 20  # one that is shorter is none to the tools
NOT_LET_IN = "this collection is for its members"
MACHINE = "amd64" if os.uname().machine == "x86_64" else "arm64"
REMOTES = """\
Active: standin
Remotes:
  standin:
    URI: //{address}
    System: false
    Exclusive: false
    Insecure: true
"""


@dataclass
class Library:
    """`images`: file by name, as `entity/collection/container:tag`; `members`: the names that only who has TOKEN gets.

    `cuts`: each part but the first breaks off half-way; `expired`: each but the first is refused with 403, as by an object store.
    `asked`: the paths of all requests.
    """

    images: dict[str, Path]
    members: set[str] = field(default_factory=set)
    cuts: bool = False
    expired: bool = False
    asked: list[str] = field(default_factory=list)
    address: str = ""

    def parts(self) -> int:
        """How many parts of files have been asked for."""
        return sum(path.startswith("/files/") for path in self.asked)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        path = handler.path.partition("?")[0]
        self.asked.append(path)
        name = path.removeprefix("/v1/images/").removeprefix("/v1/imagefile/").removeprefix("/files/")
        here = f"http://{self.address}"
        if path == "/assets/config/config.prod.json":
            _send(handler, 200, {f"{service}API": {"uri": here} for service in ("library", "keystore", "token")})
        elif path == "/v1/token-status":
            _send(handler, 200, {}) if _has_token(handler) else _refuse(handler, 401, "Unauthorized")
        elif path == "/version":
            _send(handler, 200, {"data": {"version": "v1.0.0", "apiVersion": "2.0.0-alpha.2"}})
        elif name not in self.images:
            _refuse(handler, 404, "Not Found")
        elif name in self.members and not _has_token(handler):
            _refuse(handler, 401, NOT_LET_IN)
        elif path.startswith("/v1/images/"):
            _send(handler, 200, {"data": self._record(name)})
        elif path.startswith("/v1/imagefile/"):
            _send(handler, 303, b"", Location=f"{here}/files/{name}")
        else:
            self._part(handler, self.images[name])

    def _record(self, name: str) -> dict[str, object]:
        with self.images[name].open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"id": "1", "hash": f"sha256.{digest}", "size": self.images[name].stat().st_size, "arch": MACHINE, "uploaded": True}

    def _part(self, handler: BaseHTTPRequestHandler, image: Path) -> None:
        first, _dash, last = handler.headers.get("Range", "").removeprefix("bytes=").partition("-")
        if self.expired and int(first):
            _send(handler, 403, b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>")
            return
        with image.open("rb") as file:
            file.seek(int(first))
            data = file.read(int(last) - int(first) + 1)
        cut = len(data) // 2 if self.cuts and int(first) else len(data)
        with contextlib.suppress(ConnectionError):  # who got one part in halves asks for no more
            _send(handler, 206, data, cut, **{"Content-Range": f"bytes {first}-{last}/{image.stat().st_size}"})


@contextlib.contextmanager
def library(ground: Ground, images: dict[str, Path]) -> Iterator[Library]:
    """A library that the user's own settings name; both are gone afterwards."""
    served = Library(images)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            served.answer(self)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    served.address = f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    folder = ground.home / f".{ground.tool}"
    folder.mkdir(exist_ok=True)
    file = folder / "remote.yaml"
    file.write_text(REMOTES.format(address=served.address))
    file.chmod(0o600)
    ground.give(folder)
    try:
        yield served
    finally:
        file.unlink()
        server.shutdown()
        thread.join()
        server.server_close()


def _has_token(handler: BaseHTTPRequestHandler) -> bool:
    return handler.headers.get("Authorization") == f"Bearer {TOKEN}"


def _refuse(handler: BaseHTTPRequestHandler, status: int, why: str) -> None:
    _send(handler, status, {"error": {"code": status, "message": why}})


def _send(handler: BaseHTTPRequestHandler, status: int, body: object, cut: int | None = None, **headers: str) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    handler.send_response(status)
    for name, value in {**headers, "Content-Length": str(len(content))}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(content[:cut])
    handler.close_connection |= cut is not None and cut < len(content)
