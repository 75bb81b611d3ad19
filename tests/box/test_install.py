"""tracking_server/install: finished environments are left alone, unfinished ones never used."""

import hashlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest

from tests.support.box import MLFLOW_VERSION, OLDEST_VERSION, ROOT

INSTALL = ROOT / "tracking_server" / "install"
IN_IMAGE = "/opt/aihub/env"


def run(*arguments: str | Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, **variables}
    return subprocess.run([INSTALL, *arguments], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.box
def test_a_finished_one_is_left_alone_and_says_what_it_is(box_environment: Path) -> None:
    before = (box_environment / "version.json").stat()
    assert run(MLFLOW_VERSION, box_environment, PATH="/usr/bin:/bin").returncode == 0
    after = (box_environment / "version.json").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    note = json.loads((box_environment / "version.json").read_text())
    assert note["mlflow_version"] == MLFLOW_VERSION
    assert len(note["schema_revision"]) == 12
    assert (box_environment / "template.db").exists()


def test_the_service_reads_what_an_admin_with_a_strict_umask_installs(tmp_path: Path) -> None:
    """As root `aihub check` saw the version on offer, and users did not."""
    uv = tmp_path / "uv"
    uv.write_text("#!/bin/sh\numask >&2\nexit 1\n")
    uv.chmod(0o755)
    argv = [INSTALL, MLFLOW_VERSION, tmp_path / "envs/new"]
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(argv, env={**os.environ, **path}, umask=0o077, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == "0022"
    assert (tmp_path / "envs").stat().st_mode & 0o777 == 0o755


@pytest.mark.box
@pytest.mark.heavy
def test_the_template_is_the_same_file_whenever_it_is_made(box_environment: Path, tmp_path: Path) -> None:
    loader = SourceFileLoader("install", str(INSTALL))
    install = module_from_spec(spec_from_loader("install", loader))  # type: ignore[arg-type]
    loader.exec_module(install)
    python, years_later = box_environment / "bin" / "python", tmp_path / "python"
    years_later.write_text(f'#!/bin/sh\nexec faketime 2031-01-01 {python} "$@"\n')
    years_later.chmod(0o755)
    made = [tmp_path / name for name in ("now.db", "years-later.db")]
    with ThreadPoolExecutor() as threads:
        revisions = set(threads.map(install.make_template, map(str, (python, years_later)), made))
    assert revisions == {json.loads((box_environment / "version.json").read_text())["schema_revision"]}
    assert made[0].read_bytes() == made[1].read_bytes()
    with closing(sqlite3.connect(made[0])) as database:
        assert database.execute("SELECT name, creation_time, last_update_time FROM experiments").fetchall() == [("Default", 0, 0)]


def put_right_as_in_an_image(environment: Path) -> None:
    """What `tracking_server/Dockerfile` does with an environment when it is installed."""
    text = (ROOT / "tracking_server" / "Dockerfile").read_text()
    (step,) = re.findall(rf"^    (cd {IN_IMAGE}/lib/.*\n(?:    .*\n)+)", text, re.MULTILINE)
    assert step.rstrip().endswith(f"find {IN_IMAGE} -exec touch --no-dereference --date=@0 {{}} +")
    subprocess.run(["sh", "-euc", step.replace(IN_IMAGE, str(environment))], check=True)


def looks_of(environment: Path) -> dict[str, tuple[int, float, str]]:
    """Each path's mode, time, and content."""
    found = {}
    for path in (environment, *environment.rglob("*")):
        content = str(path.readlink()) if path.is_symlink() else hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        look = path.lstat()
        found[str(path.relative_to(environment))] = (look.st_mode, look.st_mtime, content)
    return found


@pytest.mark.box
@pytest.mark.heavy
@pytest.mark.timeout(600)
def test_two_images_of_one_lock_have_the_same_environment(box_environment: Path) -> None:
    """Of which one was installed at another time and place, and used. Both are copies: else they would share files with uv's cache."""
    with tempfile.TemporaryDirectory(prefix="envs-", dir="/tmp") as folder:  # 2 GB, which pytest would keep
        earlier, later = Path(folder, "earlier"), Path(folder, "later")
        shutil.copytree(box_environment, earlier, symlinks=True)
        done = run(MLFLOW_VERSION, later, UV_LINK_MODE="copy")
        assert done.returncode == 0, done.stderr
        for each in (earlier, later):
            put_right_as_in_an_image(each)
        found, again = looks_of(earlier), looks_of(later)
    assert [path for path in found.keys() | again.keys() if found.get(path) != again.get(path)] == []
    assert {time for _mode, time, _content in found.values()} == {0}
    assert {"version.json", "template.db", "bin/python"} < found.keys()


def test_an_unknown_version_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    done = run("1.2.3", tmp_path / "env")
    assert done.returncode == 1
    assert f"known are {OLDEST_VERSION}, {MLFLOW_VERSION}" in done.stderr
    assert not (tmp_path / "env").exists()


def test_a_failed_build_leaves_nothing_that_looks_finished(tmp_path: Path) -> None:
    broken = tmp_path / "bin"
    broken.mkdir()
    (broken / "uv").write_text("#!/bin/sh\necho no network >&2\nexit 3\n")
    (broken / "uv").chmod(0o755)
    done = run(MLFLOW_VERSION, tmp_path / "env", PATH=f"{broken}:/usr/bin:/bin")
    assert done.returncode == 1
    assert "no network" in done.stderr
    assert not (tmp_path / "env").exists()


def test_wrong_use_is_status_2() -> None:
    assert run().returncode == 2
