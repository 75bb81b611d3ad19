"""Every error as a problem document (RFC 9457), in the reader's language. Of what a client sent only names are in one."""

from __future__ import annotations

import logging
from typing import Any, NoReturn

from flask import Flask, Response, current_app, g, jsonify, request
from pydantic import ValidationError
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound, RequestEntityTooLarge

from backend.api.inputs import message_of
from backend.errors import FAILURES, ServiceError
from backend.i18n import fill, translate
from backend.messages import TITLES, describe
from backend.registry.keyring import KeyringError

log = logging.getLogger(__name__)
CONTENT_TYPE = "application/problem+json"
_SHOWN = 200


def standard_members(code: str, language: str) -> dict[str, Any]:
    """``type``, ``title`` and ``status`` of a code."""
    status = FAILURES[code].status if code in FAILURES else 500
    return {"type": f"urn:aihub:problem:{code}", "title": translate(TITLES.get(status, "Error"), language), "status": status}


def document(error: ServiceError, language: str, *, request_id: str | None = None, fields: dict[str, str] | None = None) -> dict[str, Any]:
    """The whole document."""
    found: dict[str, Any] = {**standard_members(error.code, language), **describe(error.code, error.params, language)}
    if fields:
        found["fields"] = fields
    if request_id:
        found["request_id"] = request_id
    return found


def answer(error: ServiceError, *, fields: dict[str, str] | None = None) -> Response:
    """The response for an error of ours."""
    response = jsonify(document(error, g.language, request_id=g.request_id, fields=fields))
    response.status_code = error.failure.status
    response.content_type = CONTENT_TYPE
    return response


def refuse_validation(error: ValidationError) -> NoReturn:
    """Pydantic's errors as ours, each with the field that is to blame."""
    fields: dict[str, str] = {}
    for each in error.errors(include_url=False, include_input=False):
        where = ".".join(str(part) for part in each["loc"])[:_SHOWN]
        text, params = message_of(each)
        fields.setdefault(where, fill(text, g.language, params))
    field, text = next(iter(fields.items()))
    raise InvalidRequestError(fields, f"{field}: {text}" if field else text)


class InvalidRequestError(ServiceError):
    """``invalid_request``, with its fields."""

    def __init__(self, fields: dict[str, str], why: str) -> None:
        super().__init__("invalid_request", why=why)
        self.fields = {name: text for name, text in fields.items() if name}


def install(app: Flask) -> None:
    """Answer every error with a problem document."""
    app.register_error_handler(InvalidRequestError, lambda error: answer(error, fields=error.fields))
    app.register_error_handler(ServiceError, _ours)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(Exception, _unexpected)


def _ours(error: ServiceError) -> Response:
    if error.failure.status >= 500:
        log.warning("refused: %s", error)
    response = answer(error)
    if error.failure.status in {429, 503}:
        response.headers["Retry-After"] = "5"
    return response


def _http(error: HTTPException) -> Response:
    """Flask's own errors. What is none of these is a redirect or an answer already made."""
    path = request.path[:_SHOWN]
    if isinstance(error, NotFound):
        return answer(ServiceError("no_such_path", path=path))
    if isinstance(error, MethodNotAllowed):
        response = answer(ServiceError("method_not_allowed", method=request.method, path=path))
        response.headers["Allow"] = ", ".join(sorted(error.valid_methods or ()))
        return response
    if isinstance(error, RequestEntityTooLarge):
        return answer(ServiceError("too_large", limit=current_app.config["MAX_CONTENT_LENGTH"]))
    return answer(ServiceError("bad_http", why=error.name))


def _unexpected(error: Exception) -> Response:
    if isinstance(error, KeyringError):
        log.error("%s", error)
    else:
        log.error("an error that nobody foresaw", exc_info=error)
    return answer(ServiceError("internal", request_id=g.request_id))
