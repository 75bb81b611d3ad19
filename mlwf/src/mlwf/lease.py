"""Holding a lease: a server that must be there while something runs, and what becomes of it afterwards (docs/reference/api.md)."""

import os
import re
import secrets
import threading
import time
from collections.abc import Callable
from typing import Self

from mlwf.answers import Operation, Server
from mlwf.client import Client
from mlwf.errors import MlwfError
from mlwf.i18n import _
from mlwf.wire.service_errors import OperationFailedError, ServiceError, ServiceUnavailable

UP = frozenset({"running", "sleeping"})
DOWN = frozenset({"creating", "stopped", "failed", "deleting", "deleted"})
SECONDS, LEAST_SECONDS, MOST_SECONDS = 900, 5, 2_678_400
"""For how long a lease is taken, and what the service takes."""
RETRY_SECONDS = 10.0
START_SECONDS = 600.0
AGAIN_SECONDS = 1.0
STARTS = 5
"""After so many that went well a server that is down again does not stay up: it dies at once, or somebody stops it."""
_NOT_NOW = frozenset({"server_busy", "directory_failed", "munge_failed"})
"""What a moment later is answered otherwise, whether one looks or starts; as is every 429, of the service or of a proxy before it."""
_FINAL = frozenset({404, 422})
"""What no later try changes. Who is told 403 or 409 may be so by an answer that the site's directory lost."""


def new_lease_id() -> str:
    """An id that nobody else has, which says where it was taken."""
    host = re.sub(r"[^A-Za-z0-9.-]", "-", os.uname().nodename).strip("-.")[:40]
    return f"{host or 'host'}-{os.getpid()}-{secrets.token_hex(4)}"


class HeldLease:
    """A lease that is taken at `with`, renewed by a thread, and ended at the end. Another server that gets the name meanwhile is not held.

    `warn` is told of trouble with a renewal, once for each time of trouble: whatever the lease is for goes on. A lease whose end the
    service does not hear runs out by itself. `open_client` makes the thread's own connection. Raises, at `with`, what the client raises.
    """

    def __init__(
        self,
        open_client: Callable[[], Client],
        group: str,
        env: str,
        *,
        seconds: int,
        at_end: str,
        note: str = "",
        server_id: str | None = None,
        warn: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self.lease_id = new_lease_id()
        self._open_client = open_client
        self._place = (group, env)
        self._server_id = server_id
        self._seconds = seconds
        self._at_end = at_end
        self._note = note
        self._warn = warn
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def __enter__(self) -> Self:
        with self._open_client() as client:
            self._server_id = self._server_id or client.server(*self._place).id
            self._hold(client)
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        self._thread.join(RETRY_SECONDS)
        try:
            with self._open_client() as client:
                client.end_lease(*self._place, self.lease_id)
        except MlwfError as error:
            words = _("The lease could not be ended ({error}); it runs out within {seconds} seconds.")
            self._warn(words.format(error=error, seconds=self._seconds))

    def _hold(self, client: Client) -> None:
        asked = (*self._place, self.lease_id)
        client.hold_lease(*asked, seconds=self._seconds, at_end=self._at_end, note=self._note, server_id=self._server_id)

    def _renew(self) -> None:
        pause, troubled = self._seconds / 3, False
        while not self._ended.wait(pause):
            try:
                with self._open_client() as client:
                    self._hold(client)
                pause, troubled = self._seconds / 3, False
            except MlwfError as error:
                if not troubled:
                    self._warn(_("The lease could not be renewed: {error}").format(error=error))
                if isinstance(error, ServiceError) and error.status in _FINAL:
                    return
                pause, troubled = min(RETRY_SECONDS, self._seconds / 3), True


def ensure_up(client: Client, group: str, env: str, *, on_change: Callable[[Operation], None] | None = None) -> Server:
    """The server, running or asleep; started where it is not, after whatever is under way. Raises MlwfError.

    A service that has answered once and is away then is waited for: it is being started anew. A status that a newer service has counts
    as up once a start went well.
    """
    deadline = time.monotonic() + START_SECONDS
    answered, starts = False, 0
    while True:
        try:
            server = client.server(group, env)
            answered = True
            if server.operation is not None:
                _wait_for_other(client, server.operation, deadline)
            elif server.status in UP or (starts and server.status not in DOWN):
                return server
            elif starts == STARTS:
                raise _does_not_stay_up(server)
            else:
                time.sleep(AGAIN_SECONDS if starts else 0.0)
                client.wait(client.start(group, env), on_change)
                starts += 1
        except (ServiceError, ServiceUnavailable) as error:
            passes = error.status == 429 or error.code in _NOT_NOW if isinstance(error, ServiceError) else answered
            if not passes or time.monotonic() > deadline:
                raise
            time.sleep(AGAIN_SECONDS)


def _does_not_stay_up(server: Server) -> MlwfError:
    place = f"{server.group}/{server.env_name}"
    what = _("{server} does not stay up: it was started {times} times").format(server=place, times=STARTS)
    return MlwfError(
        what, cure=_("See its state with 'mlwf server show {server}', and ask the admins if nobody is stopping it.").format(server=place)
    )


def _wait_for_other(client: Client, operation_id: str, deadline: float) -> None:
    """Let what somebody else asked for come to its end, good or bad."""
    left = max(deadline - time.monotonic(), 1.0)
    try:
        client.wait(client.operation(operation_id), timeout=left)
    except OperationFailedError:
        pass
    except ServiceError as error:
        if error.code != "no_such_operation":  # of a create that failed: with the server goes who may see it
            raise
