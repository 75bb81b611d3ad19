"""Failures as the page gets them: a code, one sentence, the cure, and the fields to blame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from flask import Flask, Response, current_app, g, jsonify, request
from mlwf.client import ServiceError, ServiceUnavailable
from mlwf.errors import MlwfError
from werkzeug.exceptions import HTTPException

from ood_app.texts import _

FIELDS: Final = {
    "group": "group_name",
    "bucket": "cloud_storage_bucket_name",
    "access_key_id": "cloud_storage_accesskey_ID",
    "secret_access_key": "cloud_storage_secret_accesskey",
}
"""The service's names of fields, as the form has them; the others are the same."""
POLLED: Final = ("api.me", "api.state")
"""What the page asks for again and again."""


class Problem(Exception):  # noqa: N818  # as RFC 9457 calls it
    """Something the user is told. `extra` goes into the answer as it is."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        cure: str,
        *,
        fields: Mapping[str, str] | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(code)
        self.status = status
        self.body = {**(extra or {}), "status": status, "code": code, "detail": detail, "cure": cure, "fields": dict(fields or {})}

    def response(self) -> tuple[Response, int]:
        answer = jsonify(self.body | {"request_id": g.request_id})
        answer.mimetype = "application/problem+json"
        return answer, self.status


def of_client(error: MlwfError) -> Problem:
    """A failure of the service, of the way to it, or of one of the caller's own files."""
    if isinstance(error, ServiceUnavailable):
        # The client's own cure speaks of its settings, which the page's reader cannot change: it goes into the log.
        current_app.logger.warning("%s", error)
        text = _("The service cannot be reached: {why}.").format(why=error.why)
        return Problem(503, "service_unreachable", text, _cure_of_silence())
    if isinstance(error, ServiceError):
        fields = {FIELDS.get(name, name): text for name, text in error.fields.items()}
        return Problem(error.status if error.status >= 400 else 502, error.code, _sentence(error), error.cure, fields=fields)
    return Problem(422, "not_possible", _sentence(error), error.cure)


def _cure_of_silence() -> str:
    """What to do after no answer. A change that got none may have been made, so nobody is sent to make it once more."""
    if request.endpoint in POLLED:
        return _("The page tries again by itself; if it goes on, tell the admins.")
    if request.method == "GET" or request.blueprint == "opening":
        return _("Try again; if it goes on, tell the admins.")
    return _("What you asked for may still be done: look at the list before you ask again.")


def _sentence(error: MlwfError) -> str:
    return f"{error.what}: {error.why}" if error.why else error.what


def register(app: Flask) -> None:
    """Every failure of a route becomes a problem document."""

    @app.errorhandler(Problem)
    def ours(error: Problem) -> tuple[Response, int]:
        return error.response()

    @app.errorhandler(MlwfError)
    def clients(error: MlwfError) -> tuple[Response, int]:
        return of_client(error).response()

    @app.errorhandler(HTTPException)
    def http(error: HTTPException) -> tuple[Response, int]:
        status = error.code or 500
        text = _("The console cannot answer this request ({status}).").format(status=status)
        return Problem(status, f"http_{status}", text, _("Reload the page; if it goes on, tell the admins.")).response()
