"""What only a terminal shows: prompts that hide the secret, the name that has to be typed, the progress of an export."""

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.mlwf.exporting import arguments, surroundings, the_package
from tests.mlwf.fake_service import FakeService
from tests.mlwf.tracking import MLMODEL, Tracking

MLWF = str(Path(sys.executable).parent / "mlwf")
SECRET = "typed-s3cr3t-key"


def _converse(argv: Sequence[str], env: dict[str, str], answers: Sequence[tuple[str, str]], cwd: Path) -> tuple[int, str]:
    """Runs a program on a terminal and types each answer when its question has appeared. Gives the exit status and the screen."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(argv, env={**env, "TERM": "xterm", "COLUMNS": "200"}, stdin=theirs, stdout=theirs, stderr=theirs, cwd=cwd)
    os.close(theirs)
    screen, waiting, deadline = "", list(answers), time.monotonic() + 60
    while True:
        assert time.monotonic() < deadline, f"no end, screen:\n{screen}"
        ready, _w, _x = select.select([ours], [], [], 1.0)
        try:
            data = os.read(ours, 65536) if ready else b""
        except OSError:  # the other end is closed: the program has ended
            break
        screen += data.decode("utf-8", "replace")
        if waiting and waiting[0][0] in screen:
            os.write(ours, f"{waiting.pop(0)[1]}\n".encode())
    os.close(ours)
    return process.wait(30), screen


def test_the_secret_key_is_asked_for_and_not_shown(service: FakeService, tmp_path: Path) -> None:
    env = surroundings(tmp_path, {"MLWF_SERVICE": service.address})
    answers = [("cloud_storage_accesskey_ID", "AKTYPED"), ("cloud_storage_secret_accesskey", SECRET)]
    status, screen = _converse([MLWF, "server", "create", "g/wine", "--bucket", "b"], env, answers, tmp_path)
    assert status == 0, screen
    assert "Service created" in screen
    assert SECRET not in screen
    body = next(body for method, _path, body, _headers in service.requests if method == "POST")
    assert (body["access_key_id"], body["secret_access_key"]) == ("AKTYPED", SECRET)


@pytest.mark.parametrize(("typed", "status", "methods"), [("wine", 0, {"DELETE"}), ("vine", 1, set()), ("", 1, set())])
def test_delete_wants_the_name_typed(service: FakeService, tmp_path: Path, typed: str, status: int, methods: set[str]) -> None:
    service.add("g", "wine")
    env = surroundings(tmp_path, {"MLWF_SERVICE": service.address})
    ended, screen = _converse([MLWF, "server", "delete", "g/wine"], env, [("Type the name wine", typed)], tmp_path)
    assert ended == status, screen
    assert "Kept until" in screen
    assert {method for method, *_ in service.requests} - {"GET"} == methods


def test_env_refuses_to_show_a_password(service: FakeService, tmp_path: Path) -> None:
    service.add("g", "wine")
    env = surroundings(tmp_path, {"MLWF_SERVICE": service.address})
    status, screen = _converse([MLWF, "server", "env", "g/wine"], env, [], tmp_path)
    assert status == 2
    assert "would be shown on the screen" in screen


@pytest.mark.box
def test_an_export_shows_its_progress(tracking: Tracking, tmp_path: Path) -> None:
    tracking.register("shown", {"MLmodel": MLMODEL, "big": os.urandom(4 << 20)})
    folder = tmp_path / "w"
    folder.mkdir()
    status, screen = _converse(arguments(tracking.url, "shown"), surroundings(folder, tracking.environ), [], folder)
    assert status == 0, screen
    assert "Found shown, version 1" in screen
    assert "2 files, from the object store" in screen
    assert "100%" in screen or "4.2/4.2 MB" in screen
    assert the_package(folder).name in screen
