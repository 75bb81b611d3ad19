"""What people read about failures, warnings and operations, from codes and parameters. Here and in the tables of backend.errors stand
all English texts; the Japanese ones are in the catalogue.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from backend.errors import FAILURES
from backend.i18n import fill, translate
from backend.notices import WARNINGS

OPERATIONS: Final[dict[str, tuple[str, str, str]]] = {
    "create": ("Creating the server …", "Service created", "The server was not created"),
    "start": ("Starting the server …", "Server started", "The server did not start"),
    "stop": ("Stopping the server …", "Server stopped", "The server did not stop"),
    "delete": ("Deleting the server …", "Server deleted", "The server was not deleted"),
    "restore": ("Restoring the server …", "Server restored", "The server was not restored"),
    "purge": ("Purging the server …", "Server purged", "The server was not purged"),
    "users": ("Registering auth info …", "Auth info registered", "The auth info was not registered"),
    "storage": ("Changing the storage key …", "Storage key changed", "The storage key was not changed; the old one is in force"),
    "resize": ("Changing the size …", "Size changed", "The size was not changed; the old one is in force"),
    "upgrade": ("Upgrading MLflow …", "MLflow upgraded", "MLflow was not upgraded"),
    "rollback": ("Rolling back the upgrade …", "Upgrade rolled back", "The upgrade was not rolled back"),
}
"""Kind to what is said while it runs, when it succeeded, when it failed. `Service created` is what users of the service wait for; elsewhere
the service is the control plane alone, and this is a server.
"""

TITLES: Final[dict[int, str]] = {
    400: "Bad request",
    401: "Not authenticated",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    413: "Too large",
    422: "Not valid",
    429: "Too many requests",
    500: "Internal error",
    502: "The tracking server failed",
    503: "Not available now",
    507: "No space left",
}


def describe(code: str, params: Mapping[str, object], language: str) -> dict[str, str]:
    """``{"code", "detail", "cure"}`` of a failure or warning. A code of another version of the service is shown as it is."""
    row = FAILURES.get(code) or WARNINGS.get(code)
    if row is None:
        return {"code": code, "detail": code, "cure": ""}
    return {"code": code, "detail": fill(row.detail, language, params), "cure": fill(row.cure, language, params)}


def describe_stored(stored: Mapping[str, Any] | None, language: str) -> dict[str, Any] | None:
    """The same of what the registry keeps (``{"code", "params", "log"}``), with the server's last lines where there are some."""
    if stored is None:
        return None
    found: dict[str, Any] = describe(str(stored["code"]), stored.get("params") or {}, language)
    if stored.get("log"):
        found["log"] = stored["log"]
    return found


def operation_message(kind: str, state: str, language: str) -> str:
    """The one line that says how an operation is."""
    under_way, succeeded, failed = OPERATIONS[kind]
    return translate({"succeeded": succeeded, "failed": failed}.get(state, under_way), language)
