"""App for MLflow Server: the console, one page that runs as the user and talks to the service through mlwf's client."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from flask import Flask, Response, g, redirect, render_template, request, send_from_directory, session, url_for
from flask.typing import ResponseReturnValue
from mlwf.client import Client

from ood_app import problems, request_id, security, settings, texts
from ood_app.api import api
from ood_app.compression import compress
from ood_app.opening import opening
from ood_app.tokens import tokens

STATIC: Final = Path(__file__).parent / "static"
LARGEST_REQUEST: Final = 64 * 1024


def create_app(chosen: settings.Settings | None = None) -> Flask:
    """The WSGI application. Raises SettingsError."""
    found = chosen or settings.load()
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = LARGEST_REQUEST
    app.extensions["aihub_settings"] = found
    app.extensions["aihub_service"] = lambda language: Client.to(found.connection, language=language, timeout=found.timeout)

    request_id.follow(app)

    @app.before_request
    def choose_language() -> None:
        g.language = texts.choose(request, found.language)

    security.protect(app, found)
    problems.register(app)
    compress(app)
    app.register_blueprint(api)
    app.register_blueprint(opening)
    app.register_blueprint(tokens)
    _add_page(app, found)
    return app


def _add_page(app: Flask, chosen: settings.Settings) -> None:
    own = app.extensions["aihub_static_version"] = _version_of_static_files()

    @app.get("/")
    def page() -> ResponseReturnValue:
        return render_template(
            "page.html",
            settings=chosen,
            language=g.language,
            languages=texts.NAMES,
            texts=texts.catalogue(g.language),
            _=texts.translate,
            version=own,
        )

    @app.get("/language/<language>")
    def language(language: str) -> ResponseReturnValue:
        if language in texts.NAMES:
            session["language"] = language
            session.permanent = True
        return redirect(url_for("page"))

    @app.get("/static/<version>/<path:name>")
    def static(version: str, name: str) -> Response:
        answer = send_from_directory(STATIC, name)
        # A page of another version, as of a portal's other host in the middle of an upgrade, gets our file: not for ever under its name.
        answer.headers["Cache-Control"] = "private, max-age=31536000, immutable" if version == own else "no-store"
        return answer


def _version_of_static_files() -> str:
    """Changes whenever a file under static/ does, so that browsers may keep them for ever."""
    digest = hashlib.sha256()
    for path in sorted(STATIC.rglob("*")):
        if path.is_file():
            digest.update(path.relative_to(STATIC).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]
