"""A model package that a node with internet has put into the cache, for a job without."""

import hashlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlwf.errors import MlwfError
from mlwf.image.cache import Cache
from mlwf.image.model.kept import KIND, keep_package, kept_package
from mlwf.image.model.progress import Silence

from tests.image.conftest import package_files, packed
from tests.image.web import Web
from tests.mlwf.image_parts import fake_tool, run_command
from tests.support.s3 import S3Store

OLD, NEW = (packed({**package_files(), "weights": os.urandom(1000)}) for _number in range(2))
TOOL = '#!/bin/sh\nif [ "$1" = --version ]; then echo "apptainer version 1.4.5"; exit; fi\necho "FATAL: no build" >&2\nexit 1\n'


@pytest.fixture
def web() -> Iterator[Web]:
    serving = Web({"/model.tar.gz": OLD}).start()
    yield serving
    serving.stop()


@pytest.fixture
def create(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """Runs the command as far as the base, which the tool does not build; status and stderr. --offline may connect to nothing."""
    fake_tool(tmp_path, "apptainer", "")
    (tmp_path / "apptainer").write_text(TOOL)
    fake_tool(tmp_path, "mksquashfs", "mksquashfs version 4.5.1\n\tzstd")
    (tmp_path / "base.tar").write_bytes(b"a base")

    def run(url: str, *options: str) -> tuple[int, str]:
        base = f"docker-archive:{tmp_path / 'base.tar'}"
        with monkeypatch.context() as patched:
            if "--offline" in options:
                patched.setattr(socket.socket, "connect", lambda _socket, to: pytest.fail(f"{to} was connected to"))
            status, _out, err = run_command(patched, tmp_path, "--model-pkg-url", url, "--base-container-url", base, *options)
        return status, err

    return run


def sha256(archive: bytes) -> str:
    return hashlib.sha256(archive).hexdigest()


def test_what_was_fetched_is_what_the_job_without_network_takes(web: Web, create: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    url, web_files = f"{web.url}/model.tar.gz", web.files
    status, told = create(url, "--offline")
    assert status == 1
    assert f"The model package {url} is not in the cache, and --offline forbids fetching it. Run the same command with --fetch-only" in told
    assert "no build" not in told
    for archive in (OLD, NEW):
        web.files = {"/model.tar.gz": archive}
        assert "no build" in create(url, "--fetch-only")[1], "the base comes after the package"
    # Nor does a damaged one take the place of a good one.
    web.files = {"/model.tar.gz": packed({"README": b""})}
    assert "there is no MLmodel" in create(url, "--fetch-only")[1]
    web.files = web_files

    asked = len(web.asked)
    assert "no build" in create(url, "--offline")[1]
    assert "no build" in create(url, "--offline", "--model-pkg-sha256", sha256(NEW))[1]
    assert f"its SHA-256 is {sha256(NEW)}, not {sha256(OLD)}" in create(url, "--offline", "--model-pkg-sha256", sha256(OLD))[1]
    assert "is not in the cache" in create(f"{url}?signature=s3cr3t", "--offline")[1]
    assert "s3cr3t" not in create(f"{url}?signature=s3cr3t", "--offline")[1]
    assert len(web.asked) == asked
    assert len(list((tmp_path / "cache" / KIND).iterdir())) == 1, "of one address, the newest"
    assert list((tmp_path / "cache/work").iterdir()) == []


def test_a_package_on_the_disk_needs_no_cache(create: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    (tmp_path / "model.tar.gz").write_bytes(OLD)
    for option in ("--offline", "--fetch-only"):
        assert "no build" in create(str(tmp_path / "model.tar.gz"), option)[1]
    assert not (tmp_path / "cache" / KIND).exists()


def test_without_either_option_nothing_is_kept(web: Web, create: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    assert "no build" in create(f"{web.url}/model.tar.gz")[1]
    assert not (tmp_path / "cache" / KIND).exists()


def test_a_checksum_is_of_no_registered_model(create: Callable[..., tuple[int, str]]) -> None:
    for option in ("--offline", "--fetch-only"):
        status, told = create("models:/wine/1", option, "--model-pkg-sha256", sha256(OLD))
        assert (status, "A checksum belongs to an archive" in told) == (2, True)
    assert "models:/wine/1 is not in the cache" in create("models:/wine/1", "--offline")[1]


def test_an_object_of_another_store_is_another_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3_store: S3Store) -> None:
    bucket = s3_store.make_bucket()
    s3_store.client().put_object(Bucket=bucket, Key="model.tar.gz", Body=OLD)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_store.reader.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_store.reader.secret_key)
    cache, url = Cache.open({"MLWF_CACHE": str(tmp_path / "cache")}), f"s3://{bucket}/model.tar.gz"
    environ = {"MLFLOW_S3_ENDPOINT_URL": s3_store.endpoint_url}
    with keep_package(cache, url, environ, Silence(), checked=False) as archive:
        assert Path(archive).read_bytes() == OLD
    assert Path(kept_package(cache, url, {"AWS_ENDPOINT_URL": f"{s3_store.endpoint_url}/"})).read_bytes() == OLD
    with pytest.raises(MlwfError, match=r"model.tar.gz \(https://other.example\) is not in the cache"):
        kept_package(cache, url, {"MLFLOW_S3_ENDPOINT_URL": "https://me:s3cr3t@other.example/"})
    # A layer of the site's tells nobody what an address gives.
    mine = Cache.open({"MLWF_CACHE": str(tmp_path / "mine"), "MLWF_SHARED_CACHE": str(cache.root)})
    with pytest.raises(MlwfError, match="--fetch-only"):
        kept_package(mine, url, environ)
