"""MLflow's log: every line one shape, with the id of the request that it is about; and a line for each request.

nginx made the id, or took a client's that is well-formed (`tracking_server/nginx.py`); it has it in its own log and in the answer.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextvars import ContextVar

from tracking_server.mlflow_process.spool import App, Message, Receive, Scope, Send

_REQUEST: ContextVar[str] = ContextVar("request", default="")
_HEADER = b"x-request-id"
_QUIET = "/mlflow/static-files/"
_log = logging.getLogger("request")


class Lines(logging.Formatter):
    """`TIME LEVEL LOGGER: TEXT request=ID`, in UTC; a traceback follows on lines of its own."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        """The line, before the traceback is put below it. A break within a message would be a line that nobody wrote."""
        line = super().formatMessage(record).replace("\r", "\\r").replace("\n", " | ")
        request = _REQUEST.get()
        return f"{line} request={request}" if request else line


class RequestLog:
    """Knows the request in everything that is done for it, threads included, and says in the end how it went."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # Each request is a task of its own: whoever reports a failure of it, uvicorn itself included, still has the id.
        _REQUEST.set(dict(scope["headers"]).get(_HEADER, b"").decode("latin-1"))
        began, status, ended = time.monotonic(), 0, False

        async def noting(message: Message) -> None:
            nonlocal status, ended
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)
            ended = message["type"] == "http.response.body" and not message.get("more_body", False)

        try:
            await self._app(scope, receive, noting)
        except Exception:
            if not ended:
                raise
            # uvicorn would end the connection, on which nginx may have sent the next request: that would fail, too.
            _log.exception("MLflow failed, after its answer")
        finally:
            _say(scope, status, time.monotonic() - began)


def _say(scope: Scope, status: int, seconds: float) -> None:
    """Without the query, as in nginx's log. `raw_path` is encoded: no byte of it ends a line."""
    path = scope["raw_path"].decode("latin-1")
    if path.startswith(_QUIET) and status < 400:
        return
    level = logging.WARNING if status >= 500 or status == 0 else logging.INFO
    _log.log(level, "%s %s %s %.0f ms", scope["method"], path, status or "no answer", seconds * 1000)


def install() -> None:
    """Once MLflow is imported and has made its handlers. What nobody handles goes the same way."""
    logging.getLogger().addHandler(logging.StreamHandler(sys.stderr))
    _log.setLevel(logging.INFO)
    for handler in _handlers():
        handler.setFormatter(Lines())


def _handlers() -> Iterator[logging.Handler]:
    root = logging.getLogger()
    yield from root.handlers
    for logger in list(root.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger):
            yield from logger.handlers
