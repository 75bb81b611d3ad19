"""The bytes that a program writes, seen from outside."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from mlwf.image import growth
from mlwf.image.base.converted import ComingBase
from mlwf.image.cache import Cache
from mlwf.image.environment.install import OF_PACKED, Environments
from mlwf.image.environment.lock import Lock
from mlwf.image.environment.pythons import Python
from mlwf.image.growth import Growth
from mlwf.image.kit import Kit
from mlwf.image.process import Runner
from mlwf.image.steps import Meter

from tests.image.index import Index


@pytest.fixture(autouse=True)
def _measured_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(growth, "SHARE", 0)


def test_only_what_is_new_counts_and_once(tmp_path: Path) -> None:
    outer, inner = tmp_path / "blob", tmp_path / "blob/blobs/sha256"
    (tmp_path / "old").write_bytes(b"x" * 10)
    grown = Growth(tmp_path, outer, inner)
    assert grown() == 0
    inner.mkdir(parents=True)
    (inner / "layer").write_bytes(b"x" * 100)
    (outer / "oci-put-blob1").write_bytes(b"x" * 20)
    (tmp_path / "rootfs/usr").mkdir(parents=True)
    (tmp_path / "rootfs/usr/file").write_bytes(b"x" * 3)
    (tmp_path / "rootfs/usr/link").symlink_to(tmp_path / "old")
    link = (tmp_path / "rootfs/usr/link").lstat().st_size
    assert grown() == 123 + link
    (inner / "layer").unlink()
    assert grown() == 123 + link, "it never goes back"


def test_it_is_not_measured_all_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "LEAST_SECONDS", 1e6)
    grown = Growth(tmp_path)
    assert grown() == 0
    (tmp_path / "file").write_bytes(b"x")
    assert grown() == 0


def test_wheels_that_uv_fetches_are_seen(tmp_path: Path, serve_index: Callable[[Index], Index]) -> None:
    content = os.urandom(1_000_000).hex()
    index = serve_index(Index().add("top", "1.0", more={"top/data.txt": content}))
    (wheel,) = (name for name in index.files if name.startswith("top"))
    lock = Lock(f"top==1.0 --hash=sha256:{hashlib.sha256(index.files[wheel]).hexdigest()}\n", "3.11.2")
    cache = Cache(tmp_path / "cache")
    cache.root.mkdir()
    runner = Runner({"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "UV_DEFAULT_INDEX": index.url})
    kit = Kit(None, runner, None, cache, None)  # type: ignore[arg-type]
    base = ComingBase(SimpleNamespace(glibc="2.36", architecture="amd64"), lambda: None)  # type: ignore[arg-type, return-value]
    told: list[tuple[Callable[[], int], int | None]] = []
    expected: list[int] = []
    Environments(kit, base, Python("3.11.2", "/usr/bin/python3", None, "base")).fetch(
        lock, tmp_path / "layer", meter=Meter(lambda size, total: told.append((size, total)), expected.append)
    )
    ((size, total),) = told
    assert total is None
    assert 2_000_000 <= size() < 2_100_000
    assert expected[-1] // OF_PACKED == pytest.approx(len(index.files[wheel]), rel=0.03), "uv says tenths of a megabyte"
