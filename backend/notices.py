"""What an answer warns of, though nothing failed: a code, the sentence and the cure, as in ``backend.errors``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Notice:
    """One row: the sentence, the cure."""

    detail: str
    cure: str


WARNINGS: Final[dict[str, Notice]] = {
    "no_users": Notice("Nobody can log in to this server yet", "Register the users in {auth_file}."),
    "former_member": Notice(
        "The password is known to a former member of the group ({names})", "Change the password in {auth_file} and update the auth info."
    ),
    "key_opens_more": Notice(
        "The key of this server opens {count} other buckets too", "Use a key that may do nothing outside bucket {bucket}."
    ),
}
