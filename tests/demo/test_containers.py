"""A demo whose tracking servers are containers: chosen once, refused in one sentence. The walk (tests/e2e) goes through it."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from backend.networks import layout
from demo import settings
from demo.containers import choose_runtime, install_id
from demo.errors import DemoError
from demo.home import Home
from tests.support.demo import ROOT

NO_DAEMON = {"DEMO_RUNTIME": "docker", "DOCKER_HOST": "unix:///nowhere.sock"}


def test_the_service_labels_its_containers_so(tmp_path: Path) -> None:
    (tmp_path / "service").mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    assert install_id(tmp_path / "link" / "service") == layout.install_id(tmp_path / "service")


def test_without_a_daemon_it_is_refused_in_one_sentence_and_nothing_is_chosen(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "DEMO_HOME": str(tmp_path / "demo"), **NO_DAEMON}
    run = subprocess.run([ROOT / "bin/demo", "up"], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "leave DEMO_RUNTIME out for a demo without Docker" in run.stderr
    assert len(run.stderr.splitlines()) == 1
    assert not Home(tmp_path / "demo").exists()


@pytest.mark.parametrize(("there", "asked"), [(None, "docker"), ("unix:///nowhere.sock", "process")])
def test_what_was_chosen_stays(tmp_path: Path, there: str | None, asked: str) -> None:
    home, given = Home(tmp_path / "demo"), settings.load()
    with home.locked():
        home.save(replace(home.state(), docker_host=there))
        choose_runtime(home, replace(given, runtime=None))
        with pytest.raises(DemoError, match="start a new demo with DEMO_HOME=/another/folder"):
            choose_runtime(home, replace(given, runtime=asked))
    assert home.state().docker_host == there
