"""An admin watches the real service: its numbers, what their listener refuses, and its log as JSON."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from backend.log import IDS
from backend.settings import SettingsError
from backend.settings_file import load
from demo.ports import free_ports
from ood_app import settings
from ood_app.app import create_app
from tests.console.conftest import Caller
from tests.console.form import FORM
from tests.service.edge.live import Live, live_service, until
from tests.service.edge.world import BODY

KEYS = ["time", "level", "logger", "message", *IDS]
NOBODY = {"endpoint_url": "http://127.0.0.1:9"}


def objects(text: str) -> list[dict[str, Any]]:
    """The lines that are whole: of what is being written just now the end may be missing."""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    (port,) = free_ports(1)
    with live_service(metrics_listen=f"127.0.0.1:{port}", log_format="json") as service:
        service.start()
        yield service


def ask(live: Live, path: str = "/metrics", method: str = "GET", **headers: str) -> tuple[int, str, str]:
    """Status, content type and text."""
    url = f"http://{live.settings['metrics_listen']}{path}"
    request = urllib.request.Request(url, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310 (ours)
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


def value(live: Live, name: str) -> float:
    return of(live, name, {})


def of(live: Live, name: str, labels: dict[str, str]) -> float:
    samples = (sample for family in parse(ask(live)[2]) for sample in family.samples)
    return next(sample.value for sample in samples if (sample.name, sample.labels) == (name, labels))


def test_it_is_read_by_the_librarys_own_parsers(live: Live) -> None:
    status, kind, text = ask(live)
    assert (status, kind.split(";")[0]) == (200, "text/plain")
    assert {"aihub_servers", "aihub_operations", "aihub_build_info"} <= {family.name for family in parse(text)}
    status, kind, text = ask(live, Accept="application/openmetrics-text; version=1.0.0")
    assert (status, kind.split(";")[0]) == (200, "application/openmetrics-text")
    assert "aihub_build" in {family.name for family in parse_openmetrics(text)}


def test_the_reconciler_is_seen_and_ages(live: Live) -> None:
    name = "aihub_reconciler_last_pass_timestamp_seconds"
    first = until(lambda: value(live, name))
    assert until(lambda: value(live, name) > first)
    assert value(live, "aihub_reconciler_last_pass_duration_seconds") > 0


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/metrics/", 404),
        ("GET", "/api/v1/servers", 404),
        ("GET", "/api/v1/health", 404),
        ("POST", "/metrics", 405),
        ("PUT", "/metrics", 405),
        ("DELETE", "/metrics", 405),
        ("OPTIONS", "/metrics", 405),
    ],
)
def test_nothing_else_is_there(live: Live, method: str, path: str, status: int) -> None:
    assert ask(live, path, method)[0] == status


def test_a_real_operation_moves_the_counter(live: Live) -> None:
    ended = {"kind": "create", "state": "failed"}
    before = of(live, "aihub_operations_total", ended)
    group = live.ask("GET", "/me")[1]["groups"][0]["name"]
    status, made = live.ask("POST", "/servers", {**BODY, **NOBODY, "group": group})
    assert status == 202
    until(lambda: live.ask("GET", f"/operations/{made['id']}")[1]["state"] == "failed", what="the end: nobody is at that endpoint")
    assert of(live, "aihub_operations_total", ended) == before + 1
    assert of(live, "aihub_operation_duration_seconds_bucket", {**ended, "le": "+Inf"}) == before + 1


def test_a_listener_of_its_own(live: Live) -> None:
    assert [part.cmdline()[4] for part in live.parts() if part.cmdline()[4] == "metrics"]
    live.configure(token_listen=live.settings["metrics_listen"])
    try:
        with pytest.raises(SettingsError, match="metrics_listen is the same as token_listen"):
            load(live.file)
    finally:
        live.configure(token_listen=None)


def test_one_id_from_the_console_to_the_operations_end_and_the_audit(live: Live) -> None:
    variables = {"MLWF_SERVICE": f"unix://{live.socket}", "AIHUB_CONSOLE_TIMEOUT": "20", "SECRET_KEY_BASE": "k" * 64}
    caller = Caller.of(create_app(settings.load(variables)))
    group = live.ask("GET", "/me")[1]["groups"][0]["name"]
    answer = caller.send("POST", "/servers", {**FORM, **NOBODY, "group_name": group}, **{"X-Request-Id": "walk-1"})
    assert (answer.status_code, answer.headers["X-Request-Id"]) == (202, "walk-1"), answer.text
    made = answer.json
    assert made["request_id"] == "walk-1"
    until(lambda: live.ask("GET", f"/operations/{made['id']}")[1]["state"] == "failed", what="the end: nobody is at that endpoint")

    def lines(end: str = "") -> list[dict[str, Any]]:
        return [each for each in objects(live.log) if each["request_id"] == "walk-1" and each["message"].endswith(end)]

    until(lambda: lines("failed"), what="the line of the operation's end, which comes after the end itself")
    assert all((each["operation_id"], each["server_id"]) == (made["id"], made["server_id"]) for each in lines())
    assert [each["logger"] for each in lines("failed")] == ["backend.plans.run"]
    assert {"aihub.access", "backend.plans.run"} <= {each["logger"] for each in lines()}
    audit = json.loads(live.aihub("audit", "--json").stdout)
    assert [each["request_id"] for each in audit if each["operation_id"] == made["id"]] == ["walk-1"]


def test_every_line_parses_whatever_happens(live: Live) -> None:
    """After what the tests before did: broken HTTP, an unknown path, a second service, the end."""
    live.raw(b"this is no HTTP\r\n\r\n")
    live.ask("GET", "/nothing%0ahere")
    second = live.aihub("serve", check=False)
    assert second.returncode == 1
    assert "another aihub serve" in objects(second.stderr)[-1]["message"]
    assert live.stop() == 0
    found = objects(live.log)
    assert all(set(KEYS) <= set(each) <= {*KEYS, "traceback"} for each in found)
    assert {"backend.serving.supervisor", "backend.listeners", "gunicorn", "backend.reconcile.reconciler", "aihub.access"} <= {
        each["logger"].replace("gunicorn.error", "gunicorn") for each in found
    }
    assert FORM["cloud_storage_secret_accesskey"] not in live.log
