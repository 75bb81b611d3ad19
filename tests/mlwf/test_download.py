"""Many files at once, from a source that stands still."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mlwf.transfer.download import Download, _Landing
from mlwf.transfer.source import RemoteFile


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
