"""What mlwf_create_image finds out before it fetches anything."""

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from tests.mlwf.test_image_parts import fake_tool, run_command


class Registry(BaseHTTPRequestHandler):
    """Serves manifests by tag and by digest."""

    manifests: ClassVar[dict[str, bytes]] = {}

    def do_GET(self) -> None:
        manifest = self.manifests.get(self.path.rpartition("/")[2])
        self.send_response(200 if manifest else 404)
        self.send_header("Docker-Content-Digest", digest_of(manifest or b""))
        self.send_header("Content-Length", str(len(manifest or b"")))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(manifest or b"")

    do_HEAD = do_GET

    def log_message(self, *_args: object) -> None:
        pass


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    Registry.manifests = {"3": json.dumps({"layers": []}).encode()}
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    fake_tool(tmp_path, "apptainer", "apptainer version 1.4.5")
    fake_tool(tmp_path, "mksquashfs", "mksquashfs version 4.5.1\n\tzstd")
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def told(monkeypatch: pytest.MonkeyPatch, folder: Path, base: str, *options: str) -> tuple[int, str]:
    """Status and stderr, with a package that nobody serves."""
    asked = ("--model-pkg-url", "https://127.0.0.1:9/model.tar.gz", "--no-https", "--base-container-url", base)
    status, _out, err = run_command(monkeypatch, folder, *asked, *options)
    return status, err


def test_what_is_wrong_with_the_base_is_told_before_the_package_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    assert told(monkeypatch, tmp_path, "nonsense:base")[0] == 2
    assert told(monkeypatch, tmp_path, "docker-archive:no.tar")[0] == 2
    assert "404" in told(monkeypatch, tmp_path, f"docker://{address}/python:2")[1]
    assert "--offline forbids" in told(monkeypatch, tmp_path, "library://python", "--offline")[1]
    good = f"docker://{address}/python:3"
    with monkeypatch.context() as patched:
        patched.setattr("mlwf.image.plan.LEAST_SPACE", 1 << 60)
        assert "There is no place for" in told(patched, tmp_path, good)[1]
    assert "127.0.0.1:9" in told(monkeypatch, tmp_path, good)[1], "only then the package is asked for"
