"""Logs: one line for each event, to standard error, where systemd or the demo takes them; text, or JSON. No secret ever reaches one.

What a line is about (a request, an operation, a server) is said once, where the work on it begins, and stands in every line from there on.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType, TracebackType
from typing import Any, Final, TextIO

from pythonjsonlogger.json import JsonFormatter

FORMATS: Final = ("text", "json")
IDS: Final = ("request_id", "operation_id", "server_id")
_TEXT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_KEYS: Final = {"asctime": "time", "levelname": "level", "name": "logger", "message": "message"} | {name: name for name in IDS}
_about: ContextVar[Mapping[str, str]] = ContextVar("about", default=MappingProxyType({}))

log = logging.getLogger(__name__)


@contextmanager
def about(**ids: str | None) -> Iterator[None]:
    """What is logged meanwhile by this thread is about these ``IDS``, besides those that hold already."""
    token = _about.set({**_about.get(), **{name: value for name, value in ids.items() if value}})
    try:
        yield
    finally:
        _about.reset(token)


def request_headers() -> dict[str, str]:
    """What a request that this thread sends to a server has, so that its logs know whose it is; nothing where none is known."""
    request_id = _about.get().get("request_id")
    return {"X-Request-Id": request_id} if request_id else {}


class OneLine(logging.Formatter):
    """A traceback becomes part of its line, and a line break in a message is shown as one. Ids that the text does not say come last."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = super().format(record).replace("\r", "\\r").replace("\n", " | ")
        unsaid = ((name.removesuffix("_id"), value) for name, value in _about.get().items() if value not in line)
        return " ".join([line, *(f"{name}={value}" for name, value in unsaid)])


class Json(JsonFormatter):
    """An object with the keys ``time``, ``level``, ``logger``, ``message``, the ``IDS`` (null where a line is about none), and
    ``traceback`` where there is one. Nothing else, whatever a library adds to its records.
    """

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self) -> None:
        super().__init__(list(_KEYS), rename_fields={**_KEYS, "exc_info": "traceback"})

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        """The object, of what the record gives."""
        found: dict[str, Any] = {**log_data, **{name: _about.get().get(name) for name in IDS}}
        return {key: found[key] for key in (*_KEYS.values(), "traceback") if key in found}


def handler(form: str, stream: TextIO) -> logging.Handler:
    """Writes lines of that form (``FORMATS``)."""
    made = logging.StreamHandler(stream)
    made.setFormatter(Json() if form == "json" else OneLine(_TEXT))
    return made


def configure(form: str = "text") -> None:
    """Send all logs of this process there, Python's warnings and what nobody caught included."""
    logging.basicConfig(level=logging.INFO, handlers=[handler(form, sys.stderr)], force=True)
    logging.captureWarnings(capture=True)
    sys.excepthook = _uncaught
    threading.excepthook = lambda args: _uncaught(args.exc_type, args.exc_value, args.exc_traceback)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("botocore").setLevel(logging.WARNING)


def _uncaught(kind: type[BaseException], error: BaseException | None, traceback: TracebackType | None) -> None:
    if error is None or issubclass(kind, KeyboardInterrupt):
        return
    log.critical("nobody caught this", exc_info=(kind, error, traceback))
