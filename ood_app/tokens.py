"""A new bearer token: its text is shown once, on a page of its own, and is kept nowhere. The list of tokens and their end are in `api`.

A form of the page posts here into a new window, since no script may read the answer (`visits`).
"""

from __future__ import annotations

from typing import Final

from flask import Blueprint, g, request
from flask.typing import ResponseReturnValue

from ood_app import texts
from ood_app.api import close, service
from ood_app.problems import Problem
from ood_app.texts import _
from ood_app.visits import alone, check_visit, page, tell_failures

tokens: Final = Blueprint("tokens", __name__, url_prefix="/tokens")
tokens.teardown_request(close)
tell_failures(tokens, "token.html")
_DAY: Final = 86400


@tokens.post("/<group>/<env>")
def create(group: str, env: str) -> ResponseReturnValue:
    """A token of the caller for this server, for so many days."""
    check_visit()
    seconds = _seconds(request.form.get("days", ""))
    made, secret = service().create_token(group, env, seconds=seconds, name=request.form.get("name", "").strip())
    values = {"group": group, "env": env, "texts": texts.catalogue(g.language), "token": made, "secret": secret.reveal()}
    return alone(page("token.html", values))


def _seconds(days: str) -> int:
    try:
        return round(float(days) * _DAY)
    except (ValueError, OverflowError):
        text = _("Write a number of days, such as 7 or 0.5.")
        raise Problem(422, "not_a_number", _("{name} is not a number.").format(name=_("How many days")), text) from None
