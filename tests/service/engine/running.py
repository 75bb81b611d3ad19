"""A reconciler at work beside a test."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from backend.reconcile.reconciler import Reconciler


@contextmanager
def running(reconciler: Reconciler) -> Iterator[threading.Event]:
    """The reconciler in a thread of its own, ended at the end."""
    stop = threading.Event()
    thread = threading.Thread(target=reconciler.run, args=(stop,))
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join(20)
        assert not thread.is_alive()
