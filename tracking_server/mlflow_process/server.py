"""uvicorn on a socket that the guard holds, and the rule by which it goes to sleep.

Going to sleep must lose nobody. nginx keeps a connection for a second after a request and may send the next one on it at any moment, so a
connection is never closed from here without having said so in the answer before. Hence: stop accepting (newcomers queue in the guard's
socket), look whether a connection is open; if so, accept again, else end. On SIGTERM the same, but those who are here are served to their
end, for a limited time; every answer then says that it is the connection's last, and nginx lets go of the quiet ones by itself.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn  # type: ignore[import-not-found]

from tracking_server.mlflow_process.door import Door
from tracking_server.mlflow_process.workers import SharedActivity

BACKLOG = 4096
KEEP_SECONDS = 3600
"""Only nginx ends a quiet connection, after `tracking_server.nginx.KEEP_SECONDS`; this is for a client that is not nginx."""
_SETTLE_SECONDS = 0.05


class SleepyServer(uvicorn.Server):  # type: ignore[misc]  # uvicorn is in the box's environment only
    """`told` hears of `ready` and `draining`. `idle_seconds` 0: never sleeps. `door`: by which this server's own jobs come in."""

    def __init__(
        self,
        config: uvicorn.Config,
        listener: socket.socket,
        *,
        idle_seconds: float,
        drain_seconds: float,
        told: Callable[[str], None],
        activity: SharedActivity,
        door: Door,
        worker: int = 0,
    ) -> None:
        super().__init__(config)
        # A copy takes this from the object, not from the socket: copies of a blocking one made the socket block that all workers share, and
        # a worker that looked who else waits waited in there for the next connection, with all that it had accepted.
        listener.setblocking(False)
        self._listener = listener
        self._idle_seconds = idle_seconds
        self._drain_seconds = drain_seconds
        self._told = told
        self._activity = activity
        self._worker = worker
        self._door = door
        self._entering: set[asyncio.Task[object]] = set()
        self._requests_seen = 0
        self._closing = False
        self._active_now()

    def run_until_idle(self) -> None:
        """Serve until idle or SIGTERM."""
        asyncio.run(self._serve_and_sleep())

    async def _serve_and_sleep(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._asked_to_stop)
        self.config.load()
        self.config.loaded_app = self._saying_when_last(self.config.loaded_app)
        self.lifespan = self.config.lifespan_class(self.config)
        await self.startup(sockets=[self._listener.dup()])
        loop.add_reader(self._door, self._let_in)
        self._told("ready")
        self._active_now()
        await self.main_loop()
        await self._drain()
        await self.lifespan.shutdown()

    def _saying_when_last(self, app: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        """The application, whose answers end their connection while nobody is accepted."""

        async def wrapped(scope: dict[str, Any], receive: Any, send: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
            async def send_last(message: dict[str, Any]) -> None:
                if self._closing and message["type"] == "http.response.start":
                    message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
                await send(message)

            await app(scope, receive, send_last)

        return wrapped

    def _asked_to_stop(self) -> None:
        self.should_exit = True
        self._told("draining")

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second. True ends the main loop."""
        if await super().on_tick(counter):
            return True
        return self._is_idle() and await self._fell_asleep()

    def _is_idle(self) -> bool:
        now = time.monotonic()
        if self._is_somebody_here() or self.server_state.total_requests != self._requests_seen:
            self._requests_seen = self.server_state.total_requests
            self._active_now()
        return 0 < self._idle_seconds <= now - self._activity.latest()

    def _is_somebody_here(self) -> bool:
        """A request goes on when its client has left, with threads of ours: nobody would be let in while it is waited for at the end."""
        return bool(self.server_state.connections or self.server_state.tasks)

    def _active_now(self) -> None:
        self._activity.note(self._worker, time.monotonic())

    async def _fell_asleep(self) -> bool:
        await self._stop_accepting()
        if not self._is_somebody_here():
            return True
        await self._accept_again()
        self._active_now()
        return False

    async def _stop_accepting(self) -> None:
        """Afterwards every connection that was accepted is in `server_state.connections`, unless it is answered already."""
        self._closing = True
        for server in self.servers:
            server.close()
        await asyncio.sleep(_SETTLE_SECONDS)

    async def _accept_again(self) -> None:
        self._closing = False
        self.servers = [await asyncio.get_running_loop().create_server(self._protocol, sock=self._listener.dup(), backlog=BACKLOG)]

    def _protocol(self) -> asyncio.Protocol:
        made: asyncio.Protocol = self.config.http_protocol_class(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made

    def _let_in(self) -> None:
        loop = asyncio.get_running_loop()
        for newcomer in self._door.newcomers():
            entering = loop.create_task(loop.connect_accepted_socket(self._protocol, newcomer))
            self._entering.add(entering)
            entering.add_done_callback(self._entering.discard)

    async def _drain(self) -> None:
        """Not uvicorn's own shutdown: that closes connections whose next request may be on its way."""
        await self._stop_accepting()
        deadline = time.monotonic() + self._drain_seconds
        # uvicorn has no event for it.
        while self._is_somebody_here() and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
