"""What nginx answers by itself where somebody is refused or something failed, as statements of its configuration."""

from __future__ import annotations

import json

TOO_LARGE = (
    "An artifact of more than {limit} bytes cannot pass through this server: ask the admins to raise tmp_bytes or max_upload_bytes, or use "
    "a server whose artifacts go straight to the object store (artifact_access: direct)."
)
# In MLflow's own error shape, so that its client shows the message.
_REPLIES: dict[str, tuple[str, str]] = {
    "400_body": ("INVALID_PARAMETER_VALUE", "Only an upload (PUT) has a body here: send none with this request."),
    "400_path": ("INVALID_PARAMETER_VALUE", "The path holds a control character, such as a line feed: give the file another name."),
    "401": (
        "UNAUTHENTICATED",
        "Unknown user, wrong password, or a token that is no longer good: use what was registered for this server, or make a new token.",
    ),
    "401_portal": ("UNAUTHENTICATED", "You are not signed in to this server, or no longer: press Open in the console."),
    "401_closed": (
        "UNAUTHENTICATED",
        "No user is registered for this server yet, so it lets nobody in: register Auth Info in the console, or run mlwf server auth.",
    ),
    "401_expired": (
        "UNAUTHENTICATED",
        "This token has expired: make a new one (mlwf token create), set MLFLOW_TRACKING_TOKEN, and MLFLOW_RUN_ID to go on in that run.",
    ),
    "403": ("PERMISSION_DENIED", "This server does not offer this part of MLflow: ask its administrator."),
    "403_foreign": ("PERMISSION_DENIED", "The request came from a page of another site, so nothing was done: use the pages of the portal."),
    "404": ("ENDPOINT_NOT_FOUND", "Nothing is here: MLflow is under /mlflow/."),
    "413": ("INVALID_PARAMETER_VALUE", "The request is larger than this server takes: send less at once."),
    "413_artifact": ("INVALID_PARAMETER_VALUE", TOO_LARGE.format(limit="$aihub_largest")),
    "429": ("RESOURCE_EXHAUSTED", "Too many wrong passwords for this user: wait some seconds and try again."),
    "503_crowded": (
        "TEMPORARILY_UNAVAILABLE",
        "Too many large or unfinished requests are on their way to this server: try again in some seconds.",
    ),
    "503_own": (
        "TEMPORARILY_UNAVAILABLE",
        "The server could not take the request, since its disk is full or it starts again: try again, or look at its status.",
    ),
    "503": ("TEMPORARILY_UNAVAILABLE", "MLflow stopped while it answered, and starts again by itself: try again."),
}
"""By status, or status and case: MLflow's error code, and what to do."""


def statements() -> dict[str, str]:
    """Each reply as a `return` statement, by its name."""
    return {name: _statement(name, code, message) for name, (code, message) in _REPLIES.items()}


def _statement(name: str, code: str, message: str) -> str:
    return f"return {name[:3]} '{json.dumps({'error_code': code, 'message': message})}\\n';"
