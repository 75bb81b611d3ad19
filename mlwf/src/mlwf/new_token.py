"""A new bearer token, in force when it is handed out."""

import time
from collections.abc import Callable

from mlwf.answers import Token
from mlwf.client import Client
from mlwf.errors import MlwfError
from mlwf.i18n import _
from mlwf.secret import Secret
from mlwf.wire.service_errors import passes

_TAKEN_OVER_SECONDS = 20.0


def make_token(
    client: Client, group: str, env_name: str, *, seconds: int, name: str, wait: bool, sleep: Callable[[float], None] = time.sleep
) -> tuple[Token, Secret]:
    """With `wait` the server accepts it when this returns. Raises MlwfError."""
    made, secret = client.create_token(group, env_name, seconds=seconds, name=name)
    deadline = time.monotonic() + _TAKEN_OVER_SECONDS
    while wait and made.state == "pending":
        if time.monotonic() > deadline:
            client.revoke_token(group, env_name, made.id)
            raise MlwfError(
                _("The server did not take over the token within {seconds} seconds").format(seconds=round(_TAKEN_OVER_SECONDS)),
                cure=_("Try again; if it goes on, tell the admins."),
            )
        sleep(0.2)
        made = _latest(client, group, env_name, made)
    return made, secret


def _latest(client: Client, group: str, env_name: str, made: Token) -> Token:
    try:
        return next((each for each in client.tokens(group, env_name) if each.id == made.id), made)
    except MlwfError as error:
        if not passes(error):
            raise
        return made
