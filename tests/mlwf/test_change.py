"""`mlwf server upgrade|rollback|resize`."""

from collections.abc import Callable
from typing import Any

import pytest
from mlwf.cli.output import local_time

from tests.mlwf.fake_service import FakeService

Run = Callable[..., int]


def _changes(service: FakeService) -> list[tuple[str, Any]]:
    return [(f"{method} {path.rpartition('/')[2]}", body) for method, path, body, _headers in service.requests if method != "GET"]


def test_upgrade_takes_the_first_on_offer_and_says_the_way_back(
    service: FakeService, mlwf: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    service.add("g", "wine")["upgrades"] = ["3.18.0", "3.19.0"]
    assert mlwf("server", "show", "g/wine") == 0
    assert "3.18.0, 3.19.0" in capsys.readouterr().out
    assert mlwf("server", "upgrade", "g/wine") == 0
    assert "Until 2026-12-08T09:00:00+00:00 it can go back to MLflow 3.17.2 with: mlwf server rollback g/wine" in capsys.readouterr().out
    assert _changes(service) == [("POST upgrade", {"mlflow_version": "3.18.0"})]
    assert mlwf("server", "show", "g/wine") == 0
    assert f"MLflow 3.17.2 ({local_time('2026-12-08T09:00:00+00:00')})" in capsys.readouterr().out


def test_upgrade_to_the_version_that_is_said(service: FakeService, mlwf: Run) -> None:
    service.add("g", "wine")
    assert mlwf("server", "upgrade", "g/wine", "--mlflow-version", "3.19.0", "--no-wait") == 0
    assert _changes(service) == [("POST upgrade", {"mlflow_version": "3.19.0"})]


def test_no_newer_version_is_no_failure_and_asks_for_nothing(service: FakeService, mlwf: Run, capsys: pytest.CaptureFixture[str]) -> None:
    service.add("g", "wine")
    assert mlwf("server", "upgrade", "g/wine", env={"LC_ALL": "ja_JP.UTF-8"}) == 0
    assert capsys.readouterr().out.strip() == "g/wine は MLflow 3.17.2 です。これより新しいものは提供されていません。"
    assert _changes(service) == []


def test_rollback_is_confirmed(service: FakeService, mlwf: Run, capsys: pytest.CaptureFixture[str]) -> None:
    service.add("g", "wine")["previous"] = {"mlflow_version": "3.15.0", "until": "2026-12-08T09:00:00+00:00"}
    assert mlwf("server", "rollback", "g/wine") == 2
    assert "Add --yes" in capsys.readouterr().err
    assert _changes(service) == []
    assert mlwf("server", "rollback", "g/wine", "--yes") == 0
    assert _changes(service) == [("POST rollback?server_id=k3v9x2m7q4ab&mlflow_version=3.15.0", None)], "what was asked about, and no other"


def test_rollback_where_there_is_nothing_is_the_services_word(service: FakeService, mlwf: Run, capsys: pytest.CaptureFixture[str]) -> None:
    service.add("g", "wine")
    service.error = {"code": "nothing_to_roll_back", "detail": "There is nothing to go back to.", "cure": "Ask the admins for a backup."}
    assert mlwf("server", "rollback", "g/wine") == 1
    assert capsys.readouterr().err.strip() == "Error: There is nothing to go back to. Ask the admins for a backup."


def test_resize(service: FakeService, mlwf: Run) -> None:
    service.add("g", "wine")
    assert mlwf("server", "resize", "g/wine", "large") == 0
    assert _changes(service) == [("PUT size", {"size": "large"})]
    assert mlwf("server", "resize", "g/wine") == 2
