"""The demo of somebody who is not root, and on a machine that lacks what it needs."""

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from demo import settings as demo_settings
from demo.errors import DemoError
from demo.home import Home
from demo.settings import Settings
from demo.setup import prepare
from tests.support.demo import ROOT, new_demo
from tests.support.ordinary import USER, as_ordinary

PARTS = ["object store", "service", "console"]
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Of a demo in a folder of its own, on a machine without any program but the demo's."""
    monkeypatch.setenv("DEMO_HOME", str(tmp_path / "demo"))
    monkeypatch.setattr(demo_settings, "_SYSTEM_PATH", "")
    made = demo_settings.load()
    with Home(made.home).locked():
        return made


def test_a_machine_without_nginx_is_told_with_the_cure(settings: Settings) -> None:
    with pytest.raises(DemoError, match=r"^nginx is not on this machine: install it \(Debian, Ubuntu: apt-get install nginx\)"):
        prepare(Home(settings.home), settings)
    assert not Home(settings.home).service_settings.exists(), "nothing is made before"


def test_a_machine_without_the_servers_environment_is_told_with_the_cure(settings: Settings, tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "nginx").touch(0o755)
    lacking = replace(settings, python=programs / "python", environments=tmp_path / "none")
    with pytest.raises(DemoError, match=r"none/mlflow-[0-9.]+ is missing\): run make envs$"):
        prepare(Home(settings.home), lacking)


@only_root
def test_the_set_up_names_nginx_to_who_cannot_install_it(tmp_path: Path) -> None:
    """As `make demo` begins. The script looks into /usr/sbin, too, which is not in every user's PATH: it is empty here."""
    argv = [*as_ordinary(without=Path("/usr/sbin")), str(ROOT / "bin/setup")]
    done = subprocess.run(
        argv, env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith("Missing on this machine: nginx")
    assert "Ask root to install them (Debian, Ubuntu: apt-get install nginx" in sentence


@pytest.mark.box
@only_root
def test_an_ordinary_users_demo_goes_up_and_down() -> None:
    with new_demo(begin=as_ordinary()) as demo:
        shutil.chown(demo.home, USER.pw_uid, USER.pw_gid)
        up = demo.run("up", check=False)
        assert up.returncode == 0, up.stderr
        status = demo.run("status")
        assert [line.partition("  ")[0] for line in status.stdout.splitlines()] == PARTS
        running = [psutil.Process(int(words.partition(":")[0])) for words in demo.processes()]
        assert {process.uids().effective for process in running} == {USER.pw_uid}
        assert {path.stat().st_uid for path in demo.home.rglob("*")} == {USER.pw_uid}
        demo.run("down")
        assert demo.processes() == []
        assert demo.run("status", check=False).returncode == 3
