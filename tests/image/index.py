"""A package index on loopback with a few wheels that are made here, so that uv is tried for real and quickly."""

import base64
import hashlib
import io
import ssl
import tarfile
import threading
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def wheel(
    name: str, version: str, *, requires: Sequence[str] = (), tag: str = "py3-none-any", more: Mapping[str, str] | None = None
) -> tuple[str, bytes]:
    """File name and bytes of a wheel with one package that says its version, and with `more` files."""
    plain = name.replace("-", "_")
    info = f"{plain}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n" + "".join(f"Requires-Dist: {each}\n" for each in requires)
    files = {
        f"{plain}/__init__.py": f"__version__ = {version!r}\n",
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: {tag}\n",
        **(more or {}),
    }
    record = "".join(
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b'=').decode()},{len(text)}\n"
        for path, text in files.items()
    )
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for path, text in {**files, f"{info}/RECORD": record + f"{info}/RECORD,,\n"}.items():
            archive.writestr(zipfile.ZipInfo(path, (2026, 1, 1, 0, 0, 0)), text)
    return f"{plain}-{version}-{tag}.whl", out.getvalue()


@dataclass
class Index:
    """`files`: what it has, by name; `password`: of the user `site`, when it wants one; `asked`: paths in the order of requests."""

    files: dict[str, bytes] = field(default_factory=dict)
    password: str = ""
    asked: list[str] = field(default_factory=list)
    port: int = 0

    def add(self, name: str, version: str, **more: Any) -> "Index":
        self.files.update([wheel(name, version, **more)])
        return self

    def add_sdist(self, name: str, version: str, files: Mapping[str, str] | None = None) -> "Index":
        """A source package; without files, one that nobody unpacks."""
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w:gz") as tar:
            for path, text in (files or {}).items():
                entry = tarfile.TarInfo(f"{name}-{version}/{path}")
                entry.size = len(text.encode())
                tar.addfile(entry, io.BytesIO(text.encode()))
        self.files[f"{name}-{version}.tar.gz"] = out.getvalue()
        return self

    def sha256(self, file: str) -> str:
        return hashlib.sha256(self.files[file]).hexdigest()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/simple"

    @property
    def url_with_password(self) -> str:
        return f"http://site:{self.password}@127.0.0.1:{self.port}/simple"

    def answer(self, path: str) -> bytes | None:
        name = path.strip("/").rpartition("/")[2]
        if path.startswith("/files/"):
            return self.files.get(name)
        own = {file: data for file, data in self.files.items() if file.replace("_", "-").lower().startswith(f"{name}-")}
        links = "".join(f'<a href="/files/{file}#sha256={hashlib.sha256(data).hexdigest()}">{file}</a>' for file, data in own.items())
        return f"<!DOCTYPE html><html><body>{links}</body></html>".encode() if own else None


class Serving:
    """Serves an index until `stop`."""

    def __init__(self, index: Index, *, tls: ssl.SSLContext | None = None) -> None:
        expected = f"Basic {base64.b64encode(f'site:{index.password}'.encode()).decode()}"

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args: Any) -> None:
                pass

            def do_GET(self) -> None:
                index.asked.append(self.path)
                allowed = not index.password or self.headers.get("Authorization") == expected
                body = index.answer(self.path) if allowed else None
                self.send_response(200 if body is not None else 404 if allowed else 401)
                if not allowed:
                    self.send_header("WWW-Authenticate", "Basic")
                self.send_header("Content-Type", "text/html" if self.path.startswith("/simple") else "application/octet-stream")
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body or b"")

            def do_HEAD(self) -> None:
                self.do_GET()

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._server.daemon_threads = True
        index.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
