"""The API as a WSGI application: what happens around every request."""

from __future__ import annotations

import json
import logging
import re
import secrets
import time
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Final

from flask import Response, current_app, g, jsonify, request
from flask.json.provider import DefaultJSONProvider
from flask_openapi3.models.info import Info
from flask_openapi3.openapi import OpenAPI
from mlwf.i18n import language_among
from werkzeug.exceptions import RequestEntityTooLarge

import backend
from backend import i18n
from backend import log as logs
from backend.api import problems, routes
from backend.api.answers import Problem
from backend.api.identity import Identity
from backend.api.service import Service
from backend.errors import ServiceError

log = logging.getLogger("aihub.access")
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_HAVE_BODY: Final = frozenset(
    f"api.{name}" for name in ("create_server", "put_users", "put_storage", "put_size", "upgrade_server", "put_lease", "create_token")
)
DOCUMENT: Final = f"{routes.PREFIX}/openapi.json"
_ABOUT: Final = (
    "Self-service MLflow tracking servers. Who calls is proved by the listener (peer credentials on the Unix socket, MUNGE or API tokens "
    "on others), never claimed in the request. A request that changes something answers 202 and an operation to poll. Texts follow "
    "Accept-Language (en, ja)."
)


def bare_app() -> OpenAPI:
    """The paths and their document, with no service behind them."""
    app = OpenAPI(
        "backend.api",
        info=Info(title="aihub", version=backend.__version__, description=_ABOUT),
        security_schemes={},
        doc_ui=False,
        static_folder=None,
        validation_error_status=422,
        validation_error_model=Problem,
        validation_error_callback=problems.refuse_validation,
    )
    app.config.update(PROVIDE_AUTOMATIC_OPTIONS=False)
    app.url_map.merge_slashes = False
    app.json = _Json(app)
    app.register_api(routes.api)
    return app


def create_app(service: Service, identity: Identity) -> OpenAPI:
    """The application for one listener, which has exactly one identity scheme."""
    app = bare_app()
    app.config["MAX_CONTENT_LENGTH"] = service.settings.max_body_bytes
    app.extensions[routes.EXTENSION] = service
    app.before_request(_begin)
    app.before_request(lambda: _identify(service, identity))
    app.before_request(_read_body)
    app.after_request(_finish)
    app.teardown_request(_end)
    problems.install(app)
    document = app.api_doc  # made now, so that no request pays for it
    app.add_url_rule(DOCUMENT, "openapi_document", lambda: jsonify(document))
    for language in i18n.LANGUAGES:
        i18n.catalogue(language)
    return app


class _Json(DefaultJSONProvider):
    """Fields in the order of the documentation, texts as they are."""

    sort_keys = False
    ensure_ascii = False


def _begin() -> None:
    asked = request.headers.get("X-Request-Id", "")
    g.request_id = asked if _REQUEST_ID.fullmatch(asked) else secrets.token_hex(8)
    g.about = ExitStack()
    g.about.enter_context(logs.about(request_id=g.request_id))
    g.language = language_among(request.accept_languages)
    g.began = time.monotonic()
    g.caller = None


def _identify(service: Service, identity: Identity) -> None:
    """Before anything else of a request is looked at. An unknown path needs nobody."""
    if request.endpoint is not None and request.endpoint not in routes.PUBLIC:
        caller = identity.caller(request.environ, _body, service.directory)
        g.caller = replace(caller, scheme=identity.scheme)


def _read_body() -> None:
    """A JSON object where one belongs, and nothing elsewhere. Read here, whole and bounded, so that a limit is met before any work."""
    if request.endpoint is None or request.method not in _WITH_BODY:
        return
    body = _body()
    if request.endpoint not in _HAVE_BODY:
        if body:
            raise problems.InvalidRequestError({}, i18n.translate("this request has no body", g.language))
        return
    if request.mimetype != "application/json":
        raise ServiceError("not_json", why="its Content-Type is a different one")
    if not isinstance(_parsed(body), dict):
        raise ServiceError("not_json", why="it is not an object")


def _body() -> bytes:
    """The whole body. Read at most once."""
    body = request.get_data(cache=True)
    if request.content_length is None and len(body) >= current_app.config["MAX_CONTENT_LENGTH"]:
        raise RequestEntityTooLarge  # werkzeug reads no further than the limit, where a body does not say its length
    if len(body) < (request.content_length or 0):
        raise ServiceError("bad_http", why="the body did not arrive")
    return body


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except RecursionError:
        why = "it is nested too deeply"
    except UnicodeDecodeError:
        why = "it is not UTF-8"
    except ValueError:  # the parser's own words could show a secret
        why = "it cannot be parsed"
    raise ServiceError("not_json", why=why)


def _finish(response: Response) -> Response:
    response.headers["X-Request-Id"] = g.request_id
    response.headers["Content-Language"] = g.language
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers.add("Vary", "Accept-Language")
    user = g.caller.user if g.caller else "-"
    milliseconds = (time.monotonic() - g.began) * 1000
    level = logging.DEBUG if request.endpoint == "api.health" and response.status_code == 200 else logging.INFO  # asked every few seconds
    log.log(level, "%s %s %d %.0fms user=%s", request.method, _plain(request.path), response.status_code, milliseconds, user)
    return response


def _end(_error: BaseException | None) -> None:
    """What this thread says next is about another request."""
    g.about.close()


def _plain(path: str) -> str:
    """A path that cannot forge a line of the log."""
    return path[:300].encode("unicode_escape").decode("ascii")
