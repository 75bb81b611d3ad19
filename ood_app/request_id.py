"""One id for each request: the caller's own where it is well-formed, else a new one. The answer carries it, the service gets it for its
log, operation and audit, and the console's log has it.
"""

from __future__ import annotations

import logging
import re
import secrets
from typing import Final

from flask import Flask, Response, g, has_request_context, request

HEADER: Final = "X-Request-Id"
_WELL_FORMED: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""As the service has it (docs/reference/api.md): what it would not take would be two ids for one request."""
_SHOWN: Final = 300


def follow(app: Flask) -> None:
    """Sets it up. To be called before whatever else looks at requests, so that their failures have an id too."""
    app.logger.setLevel(logging.INFO)
    app.logger.addFilter(_add_id)

    @app.before_request
    def begin() -> None:
        asked = request.headers.get(HEADER, "")
        g.request_id = asked if _WELL_FORMED.fullmatch(asked) else secrets.token_hex(8)

    @app.after_request
    def end(response: Response) -> Response:
        response.headers[HEADER] = g.request_id
        if not _is_routine(response):
            level = logging.WARNING if response.status_code >= 500 else logging.INFO
            app.logger.log(level, "%s %s %d", request.method, _plain(request.path), response.status_code)
        return response


def _is_routine(response: Response) -> bool:
    """The page asks for its state every few seconds: what only reads and goes well would drown the rest. Open makes a ticket."""
    return request.method == "GET" and response.status_code < 400 and request.blueprint != "opening"


def _plain(path: str) -> str:
    """A path that cannot forge a line of the log."""
    return path[:_SHOWN].encode("unicode_escape").decode("ascii")


def _add_id(record: logging.LogRecord) -> bool:
    """Every line about a request ends with its id, a traceback's first line too."""
    if has_request_context() and "request_id" in g:
        record.msg, record.args = f"{record.getMessage()} request={g.request_id}", ()
    return True
