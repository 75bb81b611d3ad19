"""The listener that tells numbers: one path, nothing else, to whoever reaches it (docs/reference/metrics.md)."""

from __future__ import annotations

import logging

from flask import Flask, Response, request
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import CollectorRegistry
from werkzeug.exceptions import HTTPException

log = logging.getLogger(__name__)
PATH = "/metrics"


def create_app(numbers: CollectorRegistry) -> Flask:
    """The application of that listener alone."""
    app = Flask(__name__, static_folder=None)
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.config["MAX_CONTENT_LENGTH"] = 0

    @app.get(PATH)
    def metrics() -> Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return Response(encode(numbers), content_type=content_type)

    app.register_error_handler(HTTPException, lambda error: _plain(error.code or 500, f"{error.name}: the numbers are at GET {PATH}."))
    app.register_error_handler(Exception, _unreadable)
    return app


def _unreadable(error: Exception) -> Response:
    """No numbers rather than some: the collector sees that the question failed."""
    log.error("the metrics cannot be read", exc_info=error)
    return _plain(503, "The service's registry or disk cannot be read: see the service's log.")


def _plain(status: int, text: str) -> Response:
    return Response(f"{text}\n", status=status, content_type="text/plain; charset=utf-8", headers={"X-Content-Type-Options": "nosniff"})
