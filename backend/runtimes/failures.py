"""What it is called when a daemon cannot be asked. Pure."""

from __future__ import annotations

from typing import Final

LATE: Final = "no answer in time"
_SIGNS: Final = (
    ("timed out", LATE),
    ("No such file", "there is no socket"),
    ("refused", "nobody listens on its socket"),
    ("Permission", "no permission for its socket"),
)


def kind(error: Exception) -> str:
    """Short: the whole one names sockets and pools."""
    text = str(error)
    return next((word for sign, word in _SIGNS if sign in text), type(error).__name__)
