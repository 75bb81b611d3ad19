"""An enemy's tar archive, read forward only, and little at a time where it tells about entries, not their content."""

import gzip
import io
import tarfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from isal import igzip_lib

try:
    from lzma import LZMAError
except ImportError:  # a Python that was built without it opens no such archive
    LZMAError = EOFError  # type: ignore[assignment,misc]

CHUNK = 1 << 20
REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE)
# What reading one raises; tarfile lets through what its numbers raise.
DAMAGE: tuple[type[Exception], ...] = (  # type: ignore[assignment]  # isal's types call its error an instance
    tarfile.TarError,
    EOFError,
    zlib.error,
    LZMAError,
    igzip_lib.IsalError,
    gzip.BadGzipFile,
    ValueError,
    RecursionError,
)
# What one entry may say of itself (long names, times); tarfile keeps it in memory.
MAX_HEADER = 1 << 20
# Padding after the end mark; writers fill up to a few blocks.
MAX_PADDING = 64 << 20


class Counted(io.RawIOBase):
    def __init__(self, inner: BinaryIO) -> None:
        super().__init__()
        self._inner = inner
        self.count = 0

    def read(self, size: int = -1) -> bytes:
        data = self._inner.read(size)
        self.count += len(data)
        return data


class Joined(io.RawIOBase):
    """The first bytes, which were looked at, and then the rest."""

    def __init__(self, start: bytes, rest: Counted) -> None:
        super().__init__()
        self._start = start
        self._rest = rest

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if not self._start:
            return self._rest.read(size)
        taken, self._start = (self._start, b"") if size < 0 else (self._start[:size], self._start[size:])
        return taken

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class TarStream:
    """What tarfile reads: forward only, and little at a time where it reads about entries, not their content."""

    def __init__(self, plain: Any) -> None:
        self._plain = plain
        self._position = 0
        self._last = b""
        self._header = 0

    def begin_header(self) -> None:
        self._header = 0

    @property
    def at_end_mark(self) -> bool:
        return len(self._last) == tarfile.BLOCKSIZE and not self._last.strip(b"\0")

    def tell(self) -> int:
        return self._position

    def read(self, size: int) -> bytes:
        self._header += size
        if not 0 <= size <= MAX_HEADER or self._header > MAX_HEADER:
            raise tarfile.ReadError("an entry says too much of itself")
        self._last = self._full(size)
        return self._last

    def seek(self, position: int) -> int:
        if not 0 <= position - self._position <= MAX_HEADER:
            raise tarfile.ReadError("it cannot be read backwards")
        self._full(position - self._position)
        return position

    def content(self, size: int) -> bytes:
        if size < 0:
            raise tarfile.ReadError("an entry has a negative size")
        data: bytes = self._plain.read(size)
        self._position += len(data)
        return data

    def drain(self) -> None:
        """To the end of the archive, so that a checksum at its end is checked."""
        total = 0
        while data := self.content(CHUNK):
            total += len(data)
            if total > MAX_PADDING:
                raise tarfile.ReadError("something follows its end")

    def _full(self, size: int) -> bytes:
        parts = []
        while size:
            data = self.content(size)
            if not data:
                break
            parts.append(data)
            size -= len(data)
        return b"".join(parts)


def entries(stream: TarStream) -> Iterator[tarfile.TarInfo]:
    """Each entry in turn, to the archive's end; a file's content is to be read, by `exactly`, before the next one. Raises one of DAMAGE."""
    with tarfile.TarFile(fileobj=stream, mode="r") as tar:  # type: ignore[arg-type]  # it reads, tells and seeks forward, which is all
        while True:
            stream.begin_header()
            member = tar.next()
            if member is None:
                break
            tar.members, tar.pax_headers = [], {}  # type: ignore[attr-defined]  # what tarfile would gather is of no use here, and grows
            yield member
    if not stream.at_end_mark:
        raise tarfile.ReadError("its end is missing")
    stream.drain()


def is_file(member: tarfile.TarInfo) -> bool:
    """Whether it is a regular file all of whose bytes are there: a few of a sparse one's stand for any size."""
    return member.type in REGULAR and member.sparse is None


def exactly(read: Callable[[int], bytes | None], size: int) -> Iterator[bytes]:
    """So many bytes, in chunks. Raises EOFError where there are fewer."""
    left = size
    while left:
        chunk = read(min(left, CHUNK))
        if not chunk:
            raise EOFError("it ends in the middle of a file")
        left -= len(chunk)
        yield chunk
