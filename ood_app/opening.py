"""**Open**: one click from the list into a server's own pages. The console asks the service for a ticket, and the browser posts it.

The ticket is in a page's form and in a POST's body: never in an address, so in no log and in no history.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from flask import Blueprint, request
from flask.typing import ResponseReturnValue

from ood_app.api import close, service
from ood_app.security import POLICY
from ood_app.visits import alone, check_visit, is_visit, page, tell_failures

opening: Final = Blueprint("opening", __name__, url_prefix="/open")
opening.teardown_request(close)
tell_failures(opening, "open.html")


@opening.get("/<group>/<env>")
def open_ui(group: str, env: str) -> ResponseReturnValue:
    """At once where the browser says that its user came from this site to see a page; else after a click on a button."""
    if is_visit() and request.headers.get("Sec-Fetch-Site") in {"same-origin", "none"}:
        return _sign_in(group, env)
    return page("open.html", {"group": group, "env": env})


@opening.post("/<group>/<env>")
def open_after_click(group: str, env: str) -> ResponseReturnValue:
    """After a click. A browser too old to say what it wants the answer for is taken at the page's token."""
    check_visit()
    return _sign_in(group, env)


def _sign_in(group: str, env: str) -> ResponseReturnValue:
    ticket = service().ticket(group, env)
    parts = urlsplit(ticket.sign_in_url)
    answer = alone(page("open.html", {"group": group, "env": env, "address": ticket.sign_in_url, "ticket": ticket.ticket.reveal()}))
    # The form leads to the portal, which may be another host than the console's; and the server wants to see where it comes from.
    answer.headers["Content-Security-Policy"] = POLICY.replace("form-action 'self'", f"form-action 'self' {parts.scheme}://{parts.netloc}")
    answer.headers["Referrer-Policy"] = "strict-origin"
    return answer
