"""A reproducible tar stream: sorted names, one time, no owner."""

import tarfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from mlwf.transfer.workspace import DIRECTORY_MODE, FILE_MODE


class Sink(Protocol):
    def write(self, data: bytes) -> object: ...


class TarWriter:
    """Writes entries to a sink, in the order in which they are added. `mtime`: seconds since 1970, of every entry."""

    def __init__(self, sink: Sink, *, mtime: int) -> None:
        self._sink = sink
        self._mtime = mtime
        self._written = 0

    def add_directory(self, name: str) -> None:
        self._header(name, 0, directory=True)

    def add_file(self, name: str, size: int, chunks: Iterable[bytes]) -> None:
        """Raises ValueError when the chunks are not exactly `size` bytes together."""
        self._header(name, size, directory=False)
        seen = 0
        for chunk in chunks:
            seen += len(chunk)
            if seen > size:
                break
            self._write(chunk)
        if seen != size:
            raise ValueError(f"{name}: {size} bytes were announced, {seen} came")
        self._write(b"\0" * (-size % tarfile.BLOCKSIZE))

    def close(self) -> None:
        self._write(b"\0" * (2 * tarfile.BLOCKSIZE))
        self._write(b"\0" * (-self._written % tarfile.RECORDSIZE))

    def _header(self, name: str, size: int, *, directory: bool) -> None:
        entry = tarfile.TarInfo(name)
        entry.type = tarfile.DIRTYPE if directory else tarfile.REGTYPE
        entry.mode = DIRECTORY_MODE if directory else FILE_MODE
        entry.size = size
        entry.mtime = self._mtime
        self._write(entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict"))

    def _write(self, data: bytes) -> None:
        self._sink.write(data)
        self._written += len(data)


def with_directories(files: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """Every file and every folder above one, as (name, is it a folder), folders before what is in them."""
    folders = {"/".join(parts[:depth]) for parts in (name.split("/") for name in files) for depth in range(1, len(parts))}
    everything = [(name, False) for name in files] + [(name, True) for name in folders]
    yield from sorted(everything, key=lambda entry: entry[0].split("/"))
