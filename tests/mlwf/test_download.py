"""Many files at once, from a source that stands still."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from mlwf.export.gzip_stream import AHEAD
from mlwf.export.run import _fetch_and_pack
from mlwf.transfer.download import Download, _Landing
from mlwf.transfer.source import RemoteFile

from tests.mlwf.exporting import files_of, members
from tests.support.box import until


class Hanging:
    """Sends one chunk, and then nothing until it is let go."""

    name, ranges, workers = "hanging", False, 1

    def __init__(self) -> None:
        self.hangs, self.go_on = threading.Event(), threading.Event()

    def files(self) -> list[RemoteFile]:
        return [RemoteFile("weights", 6)]

    @contextmanager
    def read(self, _file: RemoteFile, _offset: int, _length: int | None) -> Iterator[Iterator[bytes]]:
        yield self._chunks()

    def _chunks(self) -> Iterator[bytes]:
        yield b"abc"
        self.hangs.set()
        self.go_on.wait()
        yield b"def"


class HangsInTheSecond:
    """Sends a small file whole, and of a large one all but its last megabyte, until it is let go. `reads`: which files were asked for."""

    name, ranges, workers = "hangs in the second", False, 1
    megabytes = AHEAD + 4

    def __init__(self) -> None:
        self.hangs, self.go_on = threading.Event(), threading.Event()
        self.reads: list[str] = []

    def files(self) -> list[RemoteFile]:
        return [RemoteFile("MLmodel", 5), RemoteFile("weights", self.megabytes << 20)]

    @contextmanager
    def read(self, file: RemoteFile, _offset: int, _length: int | None) -> Iterator[Iterator[bytes]]:
        self.reads.append(file.path)
        yield self._weights() if file.path == "weights" else iter([b"a: b\n"])

    def _weights(self) -> Iterator[bytes]:
        for number in range(self.megabytes):
            if number == self.megabytes - 1:
                self.hangs.set()
                self.go_on.wait()
            yield bytes([number]) * (1 << 20)


class OneByOne:
    """Begins a file when somebody has looked how far the one before it is."""

    name, ranges, workers = "one by one", False, 1

    def __init__(self) -> None:
        self.looks, self.looked = 0, threading.Event()

    def files(self) -> list[RemoteFile]:
        return [RemoteFile(f"file-{number}", 1) for number in range(100)]

    @contextmanager
    def read(self, file: RemoteFile, _offset: int, _length: int | None) -> Iterator[Iterator[bytes]]:
        assert self.looked.wait(10)
        self.looked.clear()
        yield iter([b"x" * (file.size or 0)])

    def look(self) -> None:
        self.looks += 1
        self.looked.set()


def opened(folder: Path) -> list[Path]:
    targets = [each.readlink() for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
    return [each for each in targets if each.is_relative_to(folder)]


def test_a_download_that_is_broken_off_has_no_file_open(tmp_path: Path) -> None:
    """On NFS a folder with an open file cannot be removed: Ctrl-C left the hidden folder when the store did not answer."""
    source = Hanging()
    with Download(source, source.files(), tmp_path) as download:
        assert source.hangs.wait(10)
        assert opened(tmp_path) == [tmp_path / "weights"]
    assert opened(tmp_path) == []
    (worker,) = download._threads
    assert worker.is_alive()
    source.go_on.set()
    worker.join(10)
    assert not worker.is_alive()
    assert (tmp_path / "weights").read_bytes() == b"abc"


def test_what_has_arrived_is_packed_while_the_rest_is_still_awaited(tmp_path: Path) -> None:
    """Of each file what is there: of a large one, too, before its end; and what was fetched once is not fetched again for the packing."""
    source, package = HangsInTheSecond(), tmp_path / "model.tar.gz"
    with ThreadPoolExecutor(1) as pool:
        packing = pool.submit(_fetch_and_pack, source, source.files(), tmp_path, 0, lambda _count: None)
        try:
            assert source.hangs.wait(30)
            until(lambda: package.stat().st_size, seconds=30, what="the first packed bytes")
            assert not packing.done()
        finally:
            source.go_on.set()
        packed = packing.result(60)
    assert source.reads == ["MLmodel", "weights"]
    assert members(tmp_path) == files_of(tmp_path / "artifacts")
    assert packed.unpacked == (source.megabytes << 20) + 5


def test_who_waits_for_many_files_looks_at_each_once_or_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With 20,000 files, looking at all of them after each took as long as the download."""
    source, frontier = OneByOne(), _Landing.frontier

    def counted(landing: _Landing) -> tuple[int, bool]:
        source.look()
        return frontier(landing)

    monkeypatch.setattr(_Landing, "frontier", counted)
    with Download(source, source.files(), tmp_path) as download:
        download.finish()
    assert source.looks < 300
