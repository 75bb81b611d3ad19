"""A base in a Docker daemon whose name moves to another image as soon as it was asked for."""

import json
import os
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import ClassVar

import pytest
from mlwf.errors import MlwfError
from mlwf.image.base.daemon import find_image

from tests.image.conftest import package_files
from tests.mlwf.image_parts import fake_tool, run_command
from tests.support.account import ACCOUNT, account, folder_of

ONE, OTHER = "sha256:" + "1" * 64, "sha256:" + "2" * 64
# Tells what it is asked to unpack.
TELLS = """\
#!/bin/sh
if [ "$1" = --version ]; then echo "apptainer version 1.4.5"; exit; fi
for last; do :; done
echo "FATAL: no build of $last" >&2
exit 1
"""


class Daemon(BaseHTTPRequestHandler):
    """Holds two images; each time that somebody asks what the name means, it is given to the other one afterwards."""

    names: ClassVar[dict[str, str]] = {}
    size, body = 1, b""

    def do_GET(self) -> None:
        named = self.path.removeprefix("/images/").removesuffix("/json")
        found = named if named in {ONE, OTHER} else self.names.get(named)
        if found:
            self.names.update({named: ONE if found == OTHER else OTHER})
        body = self.body or json.dumps({"Id": found, "Size": self.size}).encode()
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """With a package, the tools, and the daemon's socket."""
    Daemon.names, Daemon.size, Daemon.body = {"base:1": ONE}, 1, b""
    fake_tool(tmp_path, "apptainer", "")
    (tmp_path / "apptainer").write_text(TELLS)
    fake_tool(tmp_path, "mksquashfs", "mksquashfs version 4.5.1\n\tzstd")
    (tmp_path / "package").mkdir()
    for name, content in package_files({"code/predict.py": None}).items():
        (tmp_path / "package" / name).write_bytes(content)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    with socketserver.ThreadingUnixStreamServer(str(tmp_path / "docker.sock"), Daemon) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield tmp_path
        server.shutdown()
        thread.join()


def told(monkeypatch: pytest.MonkeyPatch, folder: Path, base: str = "base:1") -> str:
    asked = ("--model-pkg-url", str(folder / "package"), "--base-container-url", f"docker-daemon:{base}")
    status, _out, err = run_command(monkeypatch, folder, *asked)
    assert status == 1
    return " ".join(err.split())


def test_a_name_that_moves_is_read_as_what_it_was_when_it_was_asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert f"no build of docker-daemon:{ONE}" in told(monkeypatch, folder)
    assert Daemon.names["base:1"] == OTHER
    assert f"no build of docker-daemon:{OTHER}" in told(monkeypatch, folder)
    assert f"no build of docker-daemon:{ONE}" in told(monkeypatch, folder, ONE), "an id is a name, too"


def test_a_name_may_begin_with_a_registry_and_its_port(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Daemon.names["localhost:5000/site/base:1"] = ONE
    assert f"no build of docker-daemon:{ONE}" in told(monkeypatch, folder, "localhost:5000/site/base:1")
    assert "The image localhost:5000/none cannot be read" in told(monkeypatch, folder, "localhost:5000/none")


def test_what_the_daemon_does_not_give(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cannot = "cannot be read from the Docker daemon: the "
    assert f"The image none:1 {cannot}daemon answers 404" in told(monkeypatch, folder, "none:1")
    for body in (b"<html>", b"[]", b"{}", b'{"Id": "sha256:1", "Size": "large"}'):
        Daemon.body = body
        assert f"The image base:1 {cannot}Docker daemon does not answer (" in told(monkeypatch, folder)
    Daemon.body = b'{"Id": "no digest"}'
    assert f"The image base:1 {cannot}daemon answers 200" in told(monkeypatch, folder)
    Daemon.body, Daemon.size = b"", 1 << 60
    assert "There is no room for" in told(monkeypatch, folder), "the daemon tells how large it is"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_who_may_not_ask_the_daemon_is_told_so() -> None:
    """As who is not in the group docker is."""
    with folder_of(ACCOUNT) as place, socketserver.UnixStreamServer(str(place / "docker.sock"), Daemon):
        (place / "docker.sock").chmod(0o600)
        with account(ACCOUNT), pytest.raises(MlwfError, match=r"Docker daemon does not answer \(Permission denied\)"):
            find_image("base:1", {"DOCKER_HOST": f"unix://{place}/docker.sock"})
    with pytest.raises(MlwfError, match=r"does not answer \(No such file or directory\)"):
        find_image("base:1", {"DOCKER_HOST": f"unix://{place}/docker.sock"})
