"""What it is called when a daemon cannot be asked, or refuses. Pure."""

from __future__ import annotations

from typing import Final

from backend.errors import ServiceError

LATE: Final = "no answer in time"
_SIGNS: Final = (
    ("timed out", LATE),
    ("No such file", "there is no socket"),
    ("refused", "nobody listens on its socket"),
    ("Permission", "no permission for its socket"),
)
_NO_SPACE: Final = "no space left on device"
"""As a daemon says it, in the words of Go."""


def kind(error: Exception) -> str:
    """Short: the whole one names sockets and pools."""
    text = str(error)
    return next((word for sign, word in _SIGNS if sign in text), type(error).__name__)


def refused(error: Exception, code: str, *, log: str | None = None, **params: object) -> ServiceError:
    """The failure ``code`` with the daemon's own word; ``daemon_disk_full`` where its own disk is why, whatever it was to do."""
    why = str(error)
    return ServiceError("daemon_disk_full" if _NO_SPACE in why else code, log=log, why=why, **params)
