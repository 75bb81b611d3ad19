"""The service's log: one line for each event, text or JSON, with the request, the operation and the server that it is about."""

import io
import json
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from backend import log as logs

KEYS = ["time", "level", "logger", "message", *logs.IDS]


@contextmanager
def logger(form: str) -> Iterator[tuple[logging.Logger, io.StringIO]]:
    log, stream = logging.getLogger("aihub.test"), io.StringIO()
    handler = logs.handler(form, stream)
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    yield log, stream
    log.removeHandler(handler)


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_text_says_what_the_message_does_not() -> None:
    with logger("text") as (log, stream), logs.about(request_id="rid-1", operation_id="op_1", server_id=None):
        log.info("operation %s begins", "op_1")
        with logs.about(server_id="k3v9x2m7q4ab"):
            log.warning("two\nlines")
        log.info("after")
    lines = [line.split(" aihub.test: ")[1] for line in stream.getvalue().splitlines()]
    assert lines == [
        "operation op_1 begins request=rid-1",
        "two | lines request=rid-1 operation=op_1 server=k3v9x2m7q4ab",
        "after request=rid-1 operation=op_1",
    ]


def test_json_is_an_object_on_each_line_with_the_same_keys() -> None:
    with logger("json") as (log, stream):
        log.info('quotes "and"\nbreaks \u2028 日本語 \udc80', extra={"password": "secret-word", "stack": [1]})
        with logs.about(request_id="rid-1"):
            try:
                json.loads("{")
            except ValueError:
                log.exception("it failed")
    plain, failed = objects(stream.getvalue())
    assert list(plain) == KEYS
    assert plain["message"] == 'quotes "and"\nbreaks \u2028 日本語 \udc80'
    assert [plain[name] for name in logs.IDS] == [None, None, None]
    assert list(failed) == [*KEYS, "traceback"]
    assert (failed["level"], failed["request_id"]) == ("ERROR", "rid-1")
    assert failed["traceback"].startswith("Traceback (most recent call last):\n")
    assert "secret-word" not in stream.getvalue()


def test_a_thread_of_its_own_is_about_nothing() -> None:
    with logger("json") as (log, stream), logs.about(request_id="rid-1"):
        other = threading.Thread(target=log.info, args=("elsewhere",))
        other.start()
        other.join()
        log.info("here")
    assert [(each["message"], each["request_id"]) for each in objects(stream.getvalue())] == [("elsewhere", None), ("here", "rid-1")]


def test_what_nobody_caught_is_a_line_too(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr(sys, "stderr", stream)
    try:
        logs.configure("json")
        failing = threading.Thread(target=lambda: 1 / 0)
        failing.start()
        failing.join()
        sys.excepthook(ValueError, ValueError("at the end"), None)
    finally:
        logging.captureWarnings(capture=False)
        root.handlers[:] = before
        root.setLevel(level)
    found = objects(stream.getvalue())
    assert [each["traceback"].splitlines()[-1] for each in found] == ["ZeroDivisionError: division by zero", "ValueError: at the end"]
