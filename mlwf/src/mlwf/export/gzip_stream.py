"""gzip on all cores: each block of the file is a gzip member of its own, which every reader of gzip takes as one file."""

import hashlib
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO, Self

from mlwf.export.level import Choice, LevelChooser, fast

BLOCK = 1 << 20
AHEAD = 16


class ParallelGzip:
    """Writes a gzip file and knows its size and sha256 when closed. Holds `AHEAD` blocks, whatever the size.

    The members have neither time nor name, so that equal content gives an equal file. `close` ends the file; leaving the `with` by an
    error only stops the threads.
    """

    def __init__(self, file: BinaryIO, *, threads: int | None = None) -> None:
        self._file = file
        self._pool = ThreadPoolExecutor(threads or len(os.sched_getaffinity(0)), thread_name_prefix="gzip")
        self._waiting: deque[tuple[Future[bytes], Choice]] = deque()
        self._pending: list[memoryview] = []
        self._pending_size = 0
        self._chooser = LevelChooser()
        self._digest = hashlib.sha256()
        self.size = 0

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
        """Writes what is left."""
        if self._pending:
            self._submit()
        while self._waiting:
            self._emit()
        if not self.size:
            self._write(fast(b""))
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
        block = b"".join(self._pending)
        self._pending, self._pending_size = [], 0
        choice = self._chooser.choose(block)
        self._waiting.append((self._pool.submit(choice.compress, block), choice))
        if len(self._waiting) > AHEAD:
            self._emit()

    def _emit(self) -> None:
        """Writes the oldest block. Always `AHEAD` behind, on whatever machine: what has been learned of it decides about the next."""
        future, choice = self._waiting.popleft()
        data = future.result()
        self._chooser.settle(choice, len(data))
        self._write(data)

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self.size += len(data)
