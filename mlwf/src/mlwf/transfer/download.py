"""Parallel download into files, read back in order by whoever packs them, while the rest is still arriving.

Workers take the parts in the order in which they will be packed; where the server has no room for so many at once there are fewer of
them, at last one. A reader of a file sees its bytes as soon as everything before them is there. In memory there is one chunk for each
worker; what arrives early waits in its file (and in the page cache).
"""

import contextlib
import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, TypeVar

from mlwf.errors import MlwfError
from mlwf.i18n import _
from mlwf.transfer.http import ATTEMPTS, RefusedError, TransientError, pause_before
from mlwf.transfer.source import RemoteFile, Source
from mlwf.transfer.workspace import FILE_MODE

PART = 32 << 20
READ = 1 << 20
PRECONDITION_FAILED = 412
T = TypeVar("T")


@dataclass
class _Part:
    """`done` bytes of `length` have landed; a length of None becomes known at the end."""

    offset: int
    length: int | None
    done: int = 0
    complete: bool = False


@dataclass
class _Landing:
    file: RemoteFile
    path: Path
    parts: list[_Part] = field(default_factory=list)

    def frontier(self) -> tuple[int, bool]:
        """How many bytes from the start are there without a gap, and whether that is all."""
        for part in self.parts:
            if not part.complete:
                return part.offset + part.done, False
        last = self.parts[-1] if self.parts else None
        return (last.offset + last.done if last else 0), True


class _StoppedError(Exception):
    pass


class Download:
    """Fetches `files` from `source` into `folder` (whose subfolders exist). Use as a context: leaving it ends the workers.

    `on_bytes` is told how many new bytes have landed, from the workers' threads.
    """

    def __init__(
        self, source: Source, files: Sequence[RemoteFile], folder: Path, on_bytes: Callable[[int], None] = lambda _count: None
    ) -> None:
        self._source = source
        self._on_bytes = on_bytes
        self._landings = {file.path: _Landing(file, folder / file.path, _parts(source, file)) for file in files}
        self._todo = deque((landing, part) for landing in self._landings.values() for part in landing.parts)
        self._working = min(source.workers, len(self._todo))
        self._taking = threading.Lock()
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._threads: list[threading.Thread] = []
        self._opened: set[int] = set()

    def __enter__(self) -> Self:
        for landing in self._landings.values():
            descriptor = os.open(landing.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            os.fchmod(descriptor, FILE_MODE)
            os.close(descriptor)
        # Daemons: an interrupted program does not wait for a connection that hangs.
        self._threads = [threading.Thread(target=self._work, name=f"download-{number}", daemon=True) for number in range(self._working)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=1.0)
        # Whose connection hangs has its file open still, and on NFS that keeps the folder from being removed: it gets another one.
        with self._taking, Path(os.devnull).open("r+b", buffering=0) as nothing:
            for descriptor in self._opened:
                os.dup2(nothing.fileno(), descriptor, inheritable=False)

    def finish(self) -> None:
        """Waits until every file is there. Raises what broke the download."""
        for landing in self._landings.values():
            self._wait(lambda landing=landing: self._end(landing))  # type: ignore[misc]

    def size(self, path: str) -> int:
        """The file's size in bytes; waits for its end where the source did not say. Raises what broke the download."""
        landing = self._landings[path]
        if landing.file.size is not None:
            return landing.file.size
        return self._wait(lambda: self._end(landing))

    def chunks(self, path: str) -> Iterator[bytes]:
        """The file's content from the start, as it lands. Raises what broke the download, or OSError."""
        landing = self._landings[path]
        with landing.path.open("rb", buffering=0) as file:
            offset = 0
            while True:
                seen = offset
                frontier, complete = self._wait(lambda seen=seen: self._news(landing, seen))  # type: ignore[misc]
                while offset < frontier:
                    chunk = file.read(min(READ, frontier - offset))
                    if not chunk:
                        raise OSError(f"{landing.path} became shorter while it was read")
                    offset += len(chunk)
                    yield chunk
                if complete:
                    return

    @staticmethod
    def _end(landing: _Landing) -> int | None:
        frontier, complete = landing.frontier()
        return frontier if complete else None

    @staticmethod
    def _news(landing: _Landing, offset: int) -> tuple[int, bool] | None:
        frontier, complete = landing.frontier()
        return (frontier, complete) if complete or frontier >= offset + READ else None

    def _wait(self, look: Callable[[], T | None]) -> T:
        with self._changed:
            while True:
                if self._error is not None:
                    raise self._error
                found = look()
                if found is not None:
                    return found
                self._changed.wait()

    def _work(self) -> None:
        try:
            while not self._stop.is_set():
                self._fetch(*self._next())
        except _StoppedError:
            return
        except BaseException as error:  # noqa: BLE001  # whatever it is, the reader raises it
            with self._changed:
                self._error = self._error or error
                self._changed.notify_all()
            self._stop.set()

    def _next(self) -> tuple[_Landing, _Part]:
        with self._taking:
            if not self._todo:
                self._working -= 1
                raise _StoppedError
            return self._todo.popleft()

    def _leave(self, landing: _Landing, part: _Part) -> bool:
        """Whether there are other workers, to whom the part is left then: what they fetch may be what takes the server's room."""
        with self._taking:
            if self._working == 1:
                return False
            self._working -= 1
            self._todo.appendleft((landing, part))
            return True

    def _fetch(self, landing: _Landing, part: _Part) -> None:
        for attempt in itertools.count(1):
            try:
                with self._source.read(landing.file, part.offset, part.length) as chunks:
                    self._store(landing, part, chunks)
            except TransientError as error:
                if error.crowded and self._leave(landing, part):
                    raise _StoppedError from error
                if attempt == ATTEMPTS:
                    raise _broken(landing.file, str(error)) from error
                if self._stop.wait(pause_before(attempt, error)):
                    raise _StoppedError from error
            except RefusedError as error:
                # Asked for what was seen before (If-Match), web servers and stores refuse another file; who does not, sends its ETag.
                changed = error.status == PRECONDITION_FAILED
                raise _broken(landing.file, _changed(landing.file) if changed else str(error)) from error
            else:
                return

    def _store(self, landing: _Landing, part: _Part, chunks: Iterator[bytes]) -> None:
        expected = part.length if part.length is not None else landing.file.size
        with self._open(landing.path) as descriptor:
            position = 0
            for chunk in chunks:
                if self._stop.is_set():
                    raise _StoppedError
                if expected is not None and position + len(chunk) > expected:
                    raise RefusedError(_("more bytes came than the file has"))
                position = self._land(descriptor, landing, part, position, chunk)
        if expected is not None and position != expected:
            raise TransientError(_("{count} of {expected} bytes came").format(count=position, expected=expected))
        with self._changed:
            part.complete = True
            self._changed.notify_all()

    @contextlib.contextmanager
    def _open(self, path: Path) -> Iterator[int]:
        with self._taking:
            if self._stop.is_set():
                raise _StoppedError
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            self._opened.add(descriptor)
        try:
            yield descriptor
        finally:
            with self._taking:
                self._opened.remove(descriptor)
            os.close(descriptor)

    def _land(self, descriptor: int, landing: _Landing, part: _Part, position: int, chunk: bytes) -> int:
        """Writes what is new of a chunk. What an earlier try brought may be packed already, so it must come again unchanged."""
        known = chunk[: max(part.done - position, 0)]
        if known and os.pread(descriptor, len(known), part.offset + position) != known:
            raise RefusedError(_changed(landing.file))
        fresh = memoryview(chunk)[len(known) :]
        position += len(known)
        count = len(fresh)
        while fresh:
            written = os.pwrite(descriptor, fresh, part.offset + position)
            position += written
            fresh = fresh[written:]
        if count:
            with self._changed:
                # A reader waits for READ bytes or the part's end (which `_store` tells): to wake it for each chunk would only cost.
                if part.done // READ != position // READ:
                    self._changed.notify_all()
                part.done = position
            self._on_bytes(count)
        return position


def _parts(source: Source, file: RemoteFile) -> list[_Part]:
    if file.size is None or not source.ranges:
        return [_Part(0, None)]
    return [_Part(offset, min(PART, file.size - offset)) for offset in range(0, file.size, PART)]


def _changed(file: RemoteFile) -> str:
    return _("{path} changed while it was read").format(path=file.path)


def _broken(file: RemoteFile, why: str) -> MlwfError:
    return MlwfError(
        _("The file {path} of the model could not be read").format(path=file.path),
        why,
        _("Nothing was kept. Run it again; if it goes on, see the server's state with 'mlwf server list'."),
    )
