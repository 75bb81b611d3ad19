"""What the older half of MLflow (Flask) answers is sent as it is read.

MLflow's own bridge to it reads an answer as fast as it can and keeps what the client has not taken yet: of an artifact that its page
downloads nearly all, in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from tracking_server.mlflow_process.spool import Message, Receive, Scope, Send

PIECE_BYTES = 256 * 1024
Wsgi = Callable[[dict[str, Any], Callable[..., None]], Iterable[bytes]]


def install() -> None:
    """Into this process's MLflow, once, before it serves."""
    from mlflow.server import fastapi_app  # type: ignore[import-not-found]  # MLflow is in the box's environment only

    fastapi_app._EfficientWSGIResponder = Bridge  # noqa: SLF001  # MLflow's versions are pinned


class Bridge:
    """For one request. While a client is slow, or nothing is to be done, it holds no thread."""

    def __init__(self, app: Wsgi, scope: Scope) -> None:
        self._app = app
        self._scope = scope

    async def __call__(self, receive: Receive, send: Send) -> None:
        from anyio import CancelScope, to_thread
        from starlette.middleware.wsgi import build_environ  # type: ignore[import-not-found]  # as above

        answer = await to_thread.run_sync(_Answer, self._app, build_environ(self._scope, await _whole(receive)))
        try:
            await send(answer.start)
            while not answer.ended:
                await send({"type": "http.response.body", "body": answer.piece, "more_body": True})
                await to_thread.run_sync(answer.read)
            await send({"type": "http.response.body", "body": answer.piece})
        finally:
            if not answer.ended:
                with CancelScope(shield=True):  # it has files to close
                    await to_thread.run_sync(answer.end)


class _Answer:
    """For threads, one at a time. `piece` is what is to be sent now; most answers have one."""

    def __init__(self, app: Wsgi, environ: dict[str, Any]) -> None:
        self.start: Message = {}
        self.piece = b""
        self.ended = False
        self._chunks = app(environ, self._begin)
        self._left = iter(self._chunks)
        self.read()

    def _begin(self, status: str, headers: list[tuple[str, str]], _failure: object = None) -> None:
        self.start = {
            "type": "http.response.start",
            "status": int(status.partition(" ")[0]),
            "headers": [(name.encode("latin-1").lower(), value.encode("latin-1")) for name, value in headers],
        }

    def read(self) -> None:
        """The next piece."""
        held: list[bytes] = []
        size = 0
        try:
            while size < PIECE_BYTES:
                held.append(next(self._left))
                size += len(held[-1])
        except StopIteration:
            self.end()
        self.piece = b"".join(held)

    def end(self) -> None:
        self.ended = True
        close = getattr(self._chunks, "close", None)
        if close is not None:
            close()


async def _whole(receive: Receive) -> bytes:
    held, more = [], True
    while more:
        message = await receive()
        held.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(held)
