"""Model packages from everywhere: the object store, the web, a tracking server's registry, a file, a folder."""

import contextlib
import hashlib
import os
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from mlwf.errors import MlwfError
from mlwf.image.cache import Cache
from mlwf.image.model.kept import keep_package, kept_package
from mlwf.image.model.sources import fetch_files
from mlwf.transfer import download

from tests.image.conftest import package_files, packed
from tests.image.web import Web
from tests.mlwf.exporting import arguments, files_of, run, the_package
from tests.mlwf.tracking import Tracking
from tests.support.s3 import S3Store

FILES = {**package_files(), "weights/part.bin": os.urandom(600_000)}
ARCHIVE = packed(FILES)
SHA256 = hashlib.sha256(ARCHIVE).hexdigest()
OTHER = "0" * 64


class Counting:
    """What a progress bar would have been told."""

    def __init__(self) -> None:
        self.total: int | None = None
        self.count = 0

    def begins(self, total: int | None) -> None:
        self.total = total

    def arrived(self, count: int) -> None:
        self.count += count


def fetched(source: object, into: Path, environ: Mapping[str, str] | None = None, checksum: str = "") -> Counting:
    """Fetches, and says that the files are the package's and nothing else was left."""
    told = Counting()
    fetch_files(str(source), into, environ=environ or {}, progress=told, checksum=checksum)
    assert files_of(into) == FILES
    assert [path.name for path in into.parent.iterdir() if into.name in path.name] == [into.name]
    return told


def refused(source: object, into: Path, environ: Mapping[str, str] | None = None, checksum: str = "") -> str:
    """The sentence; and nothing was left."""
    before = set(into.parent.iterdir())
    with pytest.raises(MlwfError) as caught:
        fetch_files(str(source), into, environ=environ or {}, progress=Counting(), checksum=checksum)
    assert set(into.parent.iterdir()) == before
    return str(caught.value)


@pytest.fixture
def web() -> Iterator[Callable[..., Web]]:
    running: list[Web] = []

    def serve(**options: object) -> Web:
        running.append(Web({"/model.tar.gz": ARCHIVE}, **options).start())  # type: ignore[arg-type]
        return running[-1]

    yield serve
    for each in running:
        each.stop()


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PART", 100_000)


def test_a_file_and_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "model.tar.gz"
    file.write_bytes(ARCHIVE)
    told = fetched(file, tmp_path / "one", checksum=SHA256.upper())
    assert told.total == told.count == len(ARCHIVE)
    fetched(f"file://{file}", tmp_path / "two", checksum=f"sha256:{SHA256}")
    fetched(tmp_path / "one", tmp_path / "three")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr:0.1").mkdir()
    (tmp_path / "lr:0.1/model.tar.gz").symlink_to(file)
    fetched("lr:0.1/model.tar.gz", tmp_path / "of a path with a colon")
    assert "is not a model package" in refused("lr:0.2/model.tar.gz", tmp_path / "of none")
    (tmp_path / "wrapped.tar.gz").write_bytes(packed(FILES, prefix="model/"))
    fetched(tmp_path / "wrapped.tar.gz", tmp_path / "four")
    of_a_mac = {"._model": b"x", ".DS_Store": b"x", "__MACOSX/._model": b"x", **{f"model/{name}": data for name, data in FILES.items()}}
    (tmp_path / "wrapped on a mac.tar.gz").write_bytes(packed(of_a_mac))
    fetched(tmp_path / "wrapped on a mac.tar.gz", tmp_path / "of a mac")
    assert f"its SHA-256 is {SHA256}, not {OTHER}" in refused(file, tmp_path / "five", checksum=OTHER)
    assert "not a SHA-256" in refused(file, tmp_path / "five", checksum="md5:123")
    assert "a checksum belongs to an archive" in refused(tmp_path / "one", tmp_path / "five", checksum=SHA256).lower()


def test_what_is_no_package(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "no-model.tar.gz").write_bytes(packed({"README": b"hello"}))
    into = tmp_path / "model"
    assert "There is no model package" in refused(tmp_path / "none", into)
    assert "there is no MLmodel in it" in refused(tmp_path / "empty", into)
    assert "there is no MLmodel in it" in refused(tmp_path / "no-model.tar.gz", into)
    for source in ("ftp://x.example/model.tar.gz", "runs:/1/model", "javascript:alert(1)"):
        assert "is not a model package" in refused(source, into)
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked" / "MLmodel").write_text("x")
    (tmp_path / "locked" / "dangling").symlink_to("nowhere")
    assert "a link" in refused(tmp_path / "locked", into)


@pytest.mark.usefixtures("small_parts")
def test_the_web_in_parts_and_with_hiccups(tmp_path: Path, web: Callable[..., Web]) -> None:
    server = web(cuts=3)
    told = fetched(f"{server.url}/model.tar.gz", tmp_path / "model", checksum=SHA256)
    assert (told.total, told.count) == (len(ARCHIVE), len(ARCHIVE))
    assert len({asked for _path, asked in server.asked}) > 6
    server = web(ranges=False, cuts=1)
    fetched(f"{server.url}/model.tar.gz", tmp_path / "whole")
    assert "its SHA-256 is" in refused(f"{server.url}/model.tar.gz", tmp_path / "other", checksum=OTHER)


@pytest.mark.usefixtures("small_parts")
def test_a_file_that_changes_on_the_way_is_never_put_together(tmp_path: Path, web: Callable[..., Web]) -> None:
    server = web(changes=3)
    said = refused(f"{server.url}/model.tar.gz", tmp_path / "model")
    assert said.startswith(f"{server.url}/model.tar.gz could not be read: model.tar.gz changed while it was read")


def test_redirects_and_what_they_may_not_lead_to(tmp_path: Path, web: Callable[..., Web]) -> None:
    server = web()
    server.redirects = {
        "/latest": "/there",
        "/there": f"{server.url}/model.tar.gz?signature=s3cr3t-of-the-link",
        "/round": "/round",
        "/file": "file:///etc/passwd",
        "/none": "//[",
        "/login": "https://user:s3cr3t-password@x.example/",
        "/plain": "http://x.example/model.tar.gz",
        "/gone": "/nothing?signature=s3cr3t-of-the-link",
    }
    fetched(f"{server.url}/latest", tmp_path / "model")
    for path, words in {
        "round": "leading on to another address",
        "file": "is not a web address",
        "none": "is not a web address",
        "login": "holds a user name or password",
        "plain": "plain http",
        "gone": "there is no such file",
    }.items():
        said = refused(f"{server.url}/{path}", tmp_path / "other")
        assert words in said
        assert "s3cr3t" not in said
    assert "there is no such file" in refused(f"{server.url}/nothing?X-Amz-Signature=s3cr3t", tmp_path / "other")
    assert "--model-pkg-sha256" in refused("http://x.example/model.tar.gz", tmp_path / "other")
    assert "holds a user name" in refused("https://u:s3cr3t@x.example/model.tar.gz", tmp_path / "other")


@pytest.mark.usefixtures("small_parts")
def test_the_object_store(tmp_path: Path, s3_store: S3Store) -> None:
    bucket = s3_store.make_bucket()
    s3_store.client().put_object(Bucket=bucket, Key="models/wine v2/model.tar.gz", Body=ARCHIVE)
    s3_store.client().put_object(Bucket=bucket, Key="model.tar.gz", Body=ARCHIVE)
    environ = {"MLFLOW_S3_ENDPOINT_URL": s3_store.endpoint_url}
    keys = pytest.MonkeyPatch()
    with keys.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", s3_store.reader.access_key)
        patch.setenv("AWS_SECRET_ACCESS_KEY", s3_store.reader.secret_key)
        told = fetched(f"s3://{bucket}/models/wine v2/model.tar.gz", tmp_path / "model", environ, checksum=SHA256)
        assert told.total == told.count == len(ARCHIVE)
        fetched(f"s3://{bucket}/model.tar.gz", tmp_path / "top", environ)
        assert "there is no such bucket or object" in refused(f"s3://{bucket}/none.tar.gz", tmp_path / "other", environ)
        for source in (f"s3://{bucket}", f"s3://{bucket}/", "s3:///key", f"s3://{bucket}/folder/", "s3://u:p@bucket/key"):
            assert "is not the address of an object" in refused(source, tmp_path / "other", environ)
        patch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        assert "the secret of your key is wrong" in refused(f"s3://{bucket}/model.tar.gz", tmp_path / "other", environ)
    assert "no AWS credentials" in refused(f"s3://{bucket}/model.tar.gz", tmp_path / "other", environ)
    keys = f"aws_access_key_id={s3_store.reader.access_key}\naws_secret_access_key={s3_store.reader.secret_key}\n"
    (tmp_path / "config").write_text(f"[profile site]\nendpoint_url={s3_store.endpoint_url}\n{keys}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        patch.setenv("AWS_PROFILE", "site")
        fetched(f"s3://{bucket}/model.tar.gz", tmp_path / "by profile")


def test_of_an_answer_that_leads_elsewhere_no_more_is_read_than_where(tmp_path: Path) -> None:
    """It may be without an end."""
    sent = 0

    def serve(listening: socket.socket) -> None:
        nonlocal sent
        with contextlib.suppress(OSError):
            while True:
                with listening.accept()[0] as connection:
                    connection.recv(65536)
                    with contextlib.suppress(OSError):
                        connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: file:///\r\nContent-Length: 99999999999\r\n\r\n")
                        for _megabyte in range(64):
                            connection.sendall(bytes(1 << 20))
                            sent += 1

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        said = refused(f"http://127.0.0.1:{listening.getsockname()[1]}/model.tar.gz", tmp_path / "model")
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert "is not a web address" in said
    assert sent < 32


@pytest.mark.parametrize("status", [200, 206, 416])
@pytest.mark.parametrize("length", [b"\xb2", b"9" * 5000])
def test_a_length_that_is_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, length: bytes) -> None:
    """A superscript is a digit to Python, and no number; headers are read as latin-1. And it reads no number of thousands of digits."""

    class Odd(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.request.recv(65536)
            said = (status, length, length)
            self.wfile.write(b"HTTP/1.1 %d OK\r\nConnection: close\r\nContent-Range: bytes 0-0/%b\r\nContent-Length: %b\r\n\r\nx" % said)

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    with socketserver.TCPServer(("127.0.0.1", 0), Odd) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        told = refused(f"{url}/model.tar.gz", tmp_path / "model")
        of_store = refused("s3://b/model.tar.gz", tmp_path / "model", {"MLFLOW_S3_ENDPOINT_URL": url})
        server.shutdown()
        thread.join()
    if status == 416:
        assert ("the file is empty" in told, "the object is empty" in of_store) == (True, True)
    else:
        assert "does not say how large" in of_store


def test_no_room_for_it_is_told_of_the_folder_that_the_user_knows(tmp_path: Path) -> None:
    class Huge(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.request.recv(65536)
            said = b"Connection: close\r\nContent-Length: 1\r\nContent-Range: bytes 0-0/%d\r\n" % (1 << 50)
            self.wfile.write(b"HTTP/1.1 206 Partial Content\r\n%b\r\nx" % said)

    (workspace := tmp_path / ".MLWFCreateImage_1.partial").mkdir()
    with socketserver.TCPServer(("127.0.0.1", 0), Huge) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        said = refused(f"http://127.0.0.1:{server.server_address[1]}/model.tar.gz", workspace / "model")
        server.shutdown()
        thread.join()
    assert said.startswith(f"There is not enough space in {tmp_path}: ")
    assert said.endswith(" MB are free. Free some, or choose another place with --output-dir.")


@pytest.mark.usefixtures("small_parts")
def test_an_object_that_changes_on_the_way_or_is_empty(tmp_path: Path, s3_store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_store.owner.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_store.owner.secret_key)
    bucket = s3_store.make_bucket()
    environ, source = {"MLFLOW_S3_ENDPOINT_URL": s3_store.endpoint_url}, f"s3://{bucket}/model.tar.gz"

    class Replacing(Counting):
        def begins(self, total: int | None) -> None:
            super().begins(total)
            s3_store.client().put_object(Bucket=bucket, Key="model.tar.gz", Body=ARCHIVE[::-1])

    s3_store.client().put_object(Bucket=bucket, Key="model.tar.gz", Body=ARCHIVE)
    with pytest.raises(MlwfError, match=r"could not be read: model\.tar\.gz changed while it was read\. Try again\."):
        fetch_files(source, tmp_path / "model", environ=environ, progress=Replacing())
    s3_store.client().put_object(Bucket=bucket, Key="model.tar.gz", Body=b"")
    assert "cannot be read: the object is empty. Check the address" in refused(source, tmp_path / "model", environ)


@pytest.mark.box
def test_a_tracking_server_and_a_folder_of_its_export(tmp_path: Path, tracking: Tracking) -> None:
    tracking.register("imaged", FILES)
    environ = {**tracking.login, "MLFLOW_TRACKING_URI": tracking.url, "HOME": str(tmp_path)}
    for number, source in enumerate(["models:/imaged/1", "models:/imaged@champion"]):
        assert fetched(source, tmp_path / str(number), environ).count == sum(map(len, FILES.values()))
    tracking.register("im%61ged@ab", FILES)
    for number, source in enumerate(["models:/im%61ged@ab/1", "models:/im%61ged@ab@champion"]):
        fetched(source, tmp_path / f"as it is {number}", environ)
    assert "no version 7" in refused("models:/imaged/7", tmp_path / "other", environ)
    assert "is not a registered model" in refused("models:/imaged", tmp_path / "other", environ)
    assert "MLFLOW_TRACKING_URI" in refused("models:/imaged/1", tmp_path / "other", {"HOME": str(tmp_path)})
    cache = Cache.open({"MLWF_CACHE": str(tmp_path / "cache")})
    with keep_package(cache, "models:/imaged@champion", environ, Counting(), checked=False) as archive:
        fetched(archive, tmp_path / "kept")
    fetched(kept_package(cache, "models:/imaged@champion", {**environ, "MLFLOW_TRACKING_URI": f"{tracking.url}/"}), tmp_path / "offline")
    done = run(tmp_path / "export", tracking.login, *arguments(tracking.url, "imaged"))
    assert done.returncode == 0, done.stderr
    fetched(the_package(tmp_path / "export"), tmp_path / "from-folder")
    fetched(the_package(tmp_path / "export") / "model.tar.gz", tmp_path / "from-archive")
