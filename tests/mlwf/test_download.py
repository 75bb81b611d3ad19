"""Many files at once, from a source that stands still."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlwf.transfer.download import Download
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
