"""What a trial of a new version has of its own: a BASIC-auth user in its box alone, and a folder below the server's prefix."""

from __future__ import annotations

import secrets
from typing import Final

from mlwf.secret import Secret

from backend.domain import new_server_id
from backend.wishes.passwords import Hasher

USER: Final = "upgrade-trial"
FOLDER: Final = "aihub-upgrade-trial"


def new_trial(hasher: Hasher) -> dict[str, object]:
    """A box's id and a password for an operation's payload. Error: ``too_many_requests``."""
    password = Secret(secrets.token_urlsafe(24))
    (user,) = hasher.hash([(USER, password)])
    return {"trial": new_server_id(), "trial_password": password.reveal(), "trial_bcrypt": user.bcrypt}
