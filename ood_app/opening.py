"""**Open**: one click from the list into a server's own pages. The console asks the service for a ticket, and the browser posts it.

The ticket is in a page's form and in a POST's body: never in an address, so in no log and in no history.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from flask import Blueprint, Response, current_app, g, make_response, render_template, request
from flask.typing import ResponseReturnValue
from mlwf.errors import MlwfError

from ood_app import problems, texts
from ood_app.api import close, service
from ood_app.security import POLICY, foreign

opening: Final = Blueprint("opening", __name__, url_prefix="/open")
opening.teardown_request(close)


@opening.get("/<group>/<env>")
def open_ui(group: str, env: str) -> ResponseReturnValue:
    """At once where the browser says that its user came from this site to see a page; else after a click on a button."""
    if _is_visit() and request.headers.get("Sec-Fetch-Site") in {"same-origin", "none"}:
        return _sign_in(group, env)
    return _page("open.html", {"group": group, "env": env})


@opening.post("/<group>/<env>")
def open_after_click(group: str, env: str) -> ResponseReturnValue:
    """After a click. A browser too old to say what it wants the answer for is taken at the page's token."""
    if "Sec-Fetch-Mode" in request.headers and not _is_visit():
        raise foreign(request.headers["Sec-Fetch-Mode"])
    return _sign_in(group, env)


def _is_visit() -> bool:
    """A page is to be shown. No script can say this of a request whose answer it reads: a ticket is for the browser's own next step."""
    headers = request.headers
    shown = headers.get("Sec-Fetch-Mode") == "navigate" and headers.get("Sec-Fetch-Dest") == "document"
    return shown and "Sec-Purpose" not in headers  # which says that it only looks ahead


def _sign_in(group: str, env: str) -> ResponseReturnValue:
    try:
        ticket = service().ticket(group, env)
    except MlwfError as error:
        problem = problems.of_client(error)
        return _page("open.html", {"group": group, "env": env, "problem": problem.body}, status=problem.status)
    parts = urlsplit(ticket.sign_in_url)
    page = _page("open.html", {"group": group, "env": env, "address": ticket.sign_in_url, "ticket": ticket.ticket.reveal()})
    # The form leads to the portal, which may be another host than the console's; and the server wants to see where it comes from.
    page.headers["Content-Security-Policy"] = POLICY.replace("form-action 'self'", f"form-action 'self' {parts.scheme}://{parts.netloc}")
    page.headers["Referrer-Policy"] = "strict-origin"
    return page


def _page(template: str, values: dict[str, object], *, status: int = 200) -> Response:
    version = current_app.extensions["aihub_static_version"]
    settings = current_app.extensions["aihub_settings"]
    return make_response(
        render_template(template, settings=settings, language=g.language, _=texts.translate, version=version, **values), status
    )
