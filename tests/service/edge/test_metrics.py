"""The listener that tells numbers: what the real service says on it, and all that it refuses."""

import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from backend.api.metrics import create_app
from backend.metrics import collectors
from backend.registry.database import Registry
from backend.settings import Settings, SettingsError, load
from demo.ports import free_ports
from tests.service.edge.live import Live, live_service, until


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    (port,) = free_ports(1)
    with live_service(metrics_listen=f"127.0.0.1:{port}") as service:
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
    return next(sample.value for family in parse(ask(live)[2]) for sample in family.samples if sample.name == name)


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


def test_a_broken_registry_is_a_failure_and_not_a_zero(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings(state_dir=tmp_path)
    registry = Registry(settings.database_url)  # never migrated
    try:
        answer = create_app(collectors(settings, registry)).test_client().get("/metrics")
    finally:
        registry.close()
    assert answer.status_code == 503
    assert answer.text == "The service's registry or disk cannot be read: see the service's log.\n"
    assert "no such table" in caplog.text


def test_a_listener_of_its_own(live: Live) -> None:
    assert [part.cmdline()[4] for part in live.parts() if part.cmdline()[4] == "metrics"]
    live.configure(token_listen=live.settings["metrics_listen"])
    try:
        with pytest.raises(SettingsError, match="metrics_listen is token_listen too"):
            load(live.file)
    finally:
        live.configure(token_listen=None)
