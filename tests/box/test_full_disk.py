"""The disk of a server's data fills while runs are logged."""

import contextlib
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from tests.support.box import Box

pytestmark = pytest.mark.box
MakeBox = Callable[..., Box]
VALUES = 50


@contextlib.contextmanager
def small_disk(place: Path) -> Iterator[None]:
    """A file system of its own, with some megabytes more than an empty database needs."""
    place.mkdir(mode=0o700, exist_ok=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m,mode=0700", "tmpfs", place], capture_output=True, check=False).returncode:
        pytest.skip("a file system cannot be mounted here (needs root)")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)  # a box that is ended after this has files open there


def fill(ballast: Path, *, but_for: int) -> None:
    with ballast.open("wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        file.truncate(file.tell() - but_for)


def log_step(box: Box, run: str, step: int) -> requests.Response:
    metrics = [{"key": "n", "value": step, "timestamp": 1 + number, "step": step} for number in range(VALUES)]
    return box.request("POST", "/api/2.0/mlflow/runs/log-batch", json={"run_id": run, "metrics": metrics})


def log_until_refused(box: Box, run: str) -> tuple[list[int], requests.Response]:
    """The steps that were answered with 200, and the first answer that was another."""
    answered: list[int] = []
    for step in range(2000):
        answer = log_step(box, run, step)
        if answer.status_code != 200:
            return answered, answer
        answered.append(step)
    raise AssertionError("the disk never was full")


def logged(box: Box, run: str) -> list[int]:
    """The steps that are there, each with all of its values."""
    found: list[int] = []
    page = ""
    while True:
        params = {"run_id": run, "metric_key": "n", "max_results": "25000", **({"page_token": page} if page else {})}
        answer = box.api("GET", "metrics/get-history", params=params)
        found += [int(metric["step"]) for metric in answer.get("metrics", [])]
        page = answer.get("next_page_token", "")
        if not page:
            return sorted(step for step in set(found) if found.count(step) == VALUES)


def test_a_disk_that_fills_while_runs_are_logged_is_said_and_loses_nothing(own_box: MakeBox) -> None:
    box = own_box(idle_seconds=0)
    data = box.home / "data"
    with small_disk(data):
        box.start()
        run: str = box.api("POST", "runs/create", json={"experiment_id": "0"})["run"]["info"]["run_id"]
        fill(data / "ballast", but_for=1 << 20)
        answered, refused = log_until_refused(box, run)
        assert answered
        assert (refused.status_code, refused.json()["error_code"]) == (503, "TEMPORARILY_UNAVAILABLE"), refused.text
        assert "disk is full" in refused.json()["message"]
        assert logged(box, run) == answered, "what is there can be read"
        (data / "ballast").unlink()
        after = len(answered)
        assert log_step(box, run, after).status_code == 200
        assert logged(box, run) == [*answered, after]
        assert box.stop() == 0
        with contextlib.closing(sqlite3.connect(data / "mlflow.db")) as database:
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
