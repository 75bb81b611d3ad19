"""What of a box's logs tells why something failed."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Sequence
from typing import IO, Final

WENT_WELL: Final = " INFO request: "
"""In a line of ``mlflow.log`` for a request that MLflow answered (docs/reference/box.md)."""
_TAIL_BYTES: Final = 65536
_MOST_BYTES: Final = 64 * 1024**2


def telling(lines: Sequence[str]) -> list[str]:
    """All lines but those: they are many, and would leave no room for what went wrong."""
    return [line for line in lines if WENT_WELL not in line]


def tail_of(stream: Iterable[bytes], lines: int) -> list[str]:
    """The last telling lines of a tar archive's one file, of which no more than the end is held; none of an archive that ends early, as
    where the file is cut meanwhile. One that is longer than the logs' bound is not read: it may be anything.
    """
    archive = _Archive(stream)
    try:
        with tarfile.open(fileobj=archive, mode="r|") as tar:  # type: ignore[call-overload]  # it reads, which is all
            member = tar.next()
            file = tar.extractfile(member) if member is not None and member.isfile() and member.size <= _MOST_BYTES else None
            end = b"" if file is None else _end_of(file)
            if file is not None:
                archive.drain()  # who breaks off says so at the end
    except tarfile.ReadError:
        return []
    return telling(end.decode(errors="replace").splitlines())[-lines:]


def _end_of(file: IO[bytes]) -> bytes:
    end = b""
    while part := file.read(_TAIL_BYTES):
        end = (end + part)[-_TAIL_BYTES:]
    return end


class _Archive:
    """Chunks as tarfile reads a stream."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks, self._rest = filter(None, chunks), memoryview(b"")

    def read(self, size: int) -> bytes:
        """So many bytes, or fewer; none at the end."""
        self._rest = self._rest or memoryview(next(self._chunks, b""))
        taken, self._rest = self._rest[:size], self._rest[size:]
        return bytes(taken)

    def drain(self) -> None:
        while self.read(_TAIL_BYTES):
            pass
