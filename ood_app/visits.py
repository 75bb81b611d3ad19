"""Answers that hold something which no script may read: a sign-in ticket, a token's text. They are for a browser's visit alone.

Every page under /rnode has the console's origin, so that a script there can read what it fetches, frames, or opens in a window. What it
fetches or frames is told apart by the browser's own headers; a window is cut off from who opened it by `alone`.
"""

from __future__ import annotations

from flask import Blueprint, Response, current_app, g, make_response, render_template, request
from mlwf.errors import MlwfError

from ood_app import problems, texts
from ood_app.problems import Problem
from ood_app.security import foreign


def is_visit() -> bool:
    """A page is to be shown. No script can say this of a request whose answer it reads."""
    headers = request.headers
    shown = headers.get("Sec-Fetch-Mode") == "navigate" and headers.get("Sec-Fetch-Dest") == "document"
    # A look ahead, or the answer that a service worker of the same origin asks for beside the visit, to read it.
    return shown and not {"Sec-Purpose", "Service-Worker-Navigation-Preload"} & set(headers.keys())


def check_visit() -> None:
    """Refuse what is no visit. A browser too old to say what it wants the answer for is taken at the page's token.

    Raises:
        Problem: a script asks.
    """
    if "Sec-Fetch-Mode" in request.headers and not is_visit():
        raise foreign(request.headers["Sec-Fetch-Mode"])


def page(template: str, values: dict[str, object], *, status: int = 200) -> Response:
    """A page of its own, beside the list."""
    common = {
        "version": current_app.extensions["aihub_static_version"],
        "settings": current_app.extensions["aihub_settings"],
        "language": g.language,
        "request_id": g.request_id,
        "_": texts.translate,
    }
    return make_response(render_template(template, **common, **values), status)


def tell_failures(blueprint: Blueprint, template: str) -> None:
    """Every failure of the blueprint's requests is shown in its page, also of what no route sees: a person looks at the answer."""

    @blueprint.errorhandler(Problem)
    def ours(problem: Problem) -> Response:
        return page(template, {**(request.view_args or {}), "problem": problem.body}, status=problem.status)

    @blueprint.errorhandler(MlwfError)
    def clients(error: MlwfError) -> Response:
        return ours(problems.of_client(error))


def alone(answer: Response) -> Response:
    """The answer, whose window whoever opened it cannot look into, a page of the same origin with whatever headers included."""
    answer.headers["Cross-Origin-Opener-Policy"] = "noopener-allow-popups"
    return answer
