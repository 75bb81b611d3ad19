"""Work that goes on aside, in a thread, while the build does what does not need its result."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from types import TracebackType
from typing import Self, TypeVar

from mlwf.image.process import Runner

T = TypeVar("T")


class Aside:
    """One piece of work aside, which ends at the latest with the `with`. Whichever of the two fails first stops the other and is told.

    `runner` starts the programs of the work aside; `held` takes what it needs and gives back: closed when it ends, or was never started.
    """

    def __init__(self, main: Runner, mark: str) -> None:
        self.runner = main.twin(mark)
        self.held = ExitStack()
        self._main = main
        self._threads = ThreadPoolExecutor(1, mark)
        self._failed: Callable[[], BaseException | None] = lambda: None
        self._end: Callable[[], object] = lambda: None

    def start(self, work: Callable[[], T]) -> Future[T]:
        """Starts the work; whoever needs its result waits for it there."""

        def whole() -> T:
            with self.held:
                return work()

        future = self._threads.submit(whole)
        self._failed = lambda: future.exception() if future.done() else None
        self._end = lambda: wait([future])
        future.add_done_callback(lambda done: self._main.stop() if done.exception() else None)
        return future

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        first = self._failed()
        try:
            if error is None:
                self._end()
                first = self._failed()
        finally:
            self.runner.stop()
            self._threads.shutdown()
            self.held.close()
        if first and first is not error and (error is None or isinstance(error, Exception)):
            raise first
