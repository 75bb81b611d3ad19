"""gzip on all cores: blocks are compressed in parallel, each with the block before it as dictionary, into one ordinary gzip member."""

import hashlib
import os
import struct
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO, Self

from isal import isal_zlib

from mlwf.export.level import LevelChooser, compress_at

BLOCK = 1 << 20
WINDOW = 1 << 15
HEADER = b"\x1f\x8b\x08\x00" + struct.pack("<I", 0) + b"\x00\xff"


class ParallelGzip:
    """Writes a gzip file and knows its size and sha256 when closed. Holds a few blocks for each thread, whatever the size.

    The header has neither time nor name, so that equal content gives an equal file. `close` ends the file; leaving the `with` by an
    error only stops the threads.
    """

    def __init__(self, file: BinaryIO, *, threads: int | None = None) -> None:
        self._file = file
        self._threads = threads or len(os.sched_getaffinity(0))
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="gzip")
        self._waiting: deque[Future[bytes]] = deque()
        self._pending: list[memoryview] = []
        self._pending_size = 0
        self._before = b""
        self._chooser = LevelChooser()
        self._crc = 0
        self._length = 0
        self._digest = hashlib.sha256()
        self.size = 0
        self._emit(HEADER)

    def write(self, data: bytes) -> None:
        """Takes the next bytes. Raises OSError of the file below (disk full)."""
        rest = memoryview(data)
        while rest:
            taken = rest[: BLOCK - self._pending_size]
            self._pending.append(taken)
            self._pending_size += len(taken)
            rest = rest[len(taken) :]
            if self._pending_size == BLOCK:
                self._submit()

    def close(self) -> None:
        """Writes what is left and the trailer."""
        self._submit()
        while self._waiting:
            self._emit(self._waiting.popleft().result())
        self._emit(isal_zlib.compress(b"", wbits=-15))
        self._emit(struct.pack("<II", self._crc, self._length & 0xFFFFFFFF))
        self._file.flush()
        self._pool.shutdown()

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_rest: object) -> None:
        if kind is None:
            self.close()
        else:
            self._pool.shutdown(cancel_futures=True)

    def _submit(self) -> None:
        if not self._pending:
            return
        block = b"".join(self._pending)
        self._pending, self._pending_size = [], 0
        self._crc = isal_zlib.crc32(block, self._crc)
        self._length += len(block)
        self._waiting.append(self._pool.submit(compress_at, block, self._before, self._chooser.choose(block)))
        self._before = block[-WINDOW:]
        if len(self._waiting) > 2 * self._threads:
            self._emit(self._waiting.popleft().result())

    def _emit(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self.size += len(data)
