"""The exact Python from a site's mirror, by the real uv. The archive is a stand-in with python-build-standalone's layout."""

import ast
import functools
import hashlib
import io
import json
import os
import platform
import shutil
import tarfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlwf.errors import MlwfError
from mlwf.image.cache import Cache
from mlwf.image.cache_space import prune
from mlwf.image.environment.pythons import Python, PythonWishes, _from_site, _from_uv, find_python
from mlwf.image.process import ProgramError, Runner

from tests.image.web import Web
from tests.support.account import ACCOUNT, account, folder_of

SYSCONFIG = b"# system configuration generated and used by the sysconfig module\n"
TOLD = b"""build_time_vars = {
    "INCLUDEPY": "/install/include/python3.11",
    "INSTALL": "/usr/bin/install -c",
    "prefix": "/install"
}
"""
# As it stands in an address: the + of its name is quoted.
RELEASE = "20240107/cpython-3.11.7%2B20240107-linux-install_only_stripped.tar.gz"
GITHUB = "https://github.com/astral-sh/python-build-standalone/releases/download"


@functools.cache
def stand_in() -> bytes:
    """An archive with what uv looks for in a Python that it installs; one only, since its time is in it."""
    out = io.BytesIO()
    files = {
        "python/bin/python3.11": b"#!/bin/sh\necho stand-in\n",
        "python/lib/python3.11/_sysconfigdata__linux_x86_64-linux-gnu.py": SYSCONFIG + TOLD,
    }
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


@pytest.fixture
def mirror() -> Iterator[Web]:
    serving = Web({f"/{RELEASE}": stand_in()}).start()
    yield serving
    serving.stop()


def runner(folder: Path, log: io.BytesIO, *, sha256: str = "", **more: str) -> Runner:
    """uv with a list of downloads of its own form, which knows one Python."""
    machine = platform.machine()
    entry = {
        "name": "cpython", "arch": {"family": machine, "variant": None}, "os": "linux", "libc": "gnu", "major": 3, "minor": 11, "patch": 7,
        "prerelease": "", "url": f"{GITHUB}/{RELEASE}", "sha256": sha256 or hashlib.sha256(stand_in()).hexdigest(),
        "variant": None, "build": "20240107",
    }  # fmt: skip
    listed = folder / "downloads.json"
    listed.write_text(json.dumps({f"cpython-3.11.7-linux-{machine}-gnu": entry}))
    environ: Mapping[str, str] = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "UV_PYTHON_DOWNLOADS_JSON_URL": str(listed),
        "UV_HTTP_RETRIES": "0",
        **more,
    }
    return Runner(environ, log)


@pytest.mark.parametrize("by_variable", [False, True])
def test_a_mirror_gives_the_exact_patch(tmp_path: Path, mirror: Web, by_variable: bool) -> None:
    log = io.BytesIO()
    run = runner(tmp_path, log, **({"UV_PYTHON_INSTALL_MIRROR": mirror.url} if by_variable else {}))
    assert _from_uv("3.11.7", tmp_path / "python", tmp_path, run, "" if by_variable else mirror.url), log.getvalue().decode()
    assert (tmp_path / "python/bin/python3.11").read_bytes() == b"#!/bin/sh\necho stand-in\n"
    assert [path for path, _range in mirror.asked] == [f"/{RELEASE}"]


def test_a_python_names_its_place_in_the_image_wherever_it_was_installed(tmp_path: Path, cache: Cache, site: Path, mirror: Web) -> None:
    by_uv = kit_of(cache, tmp_path / "none")
    by_uv.runner.environ.update(runner(tmp_path, io.BytesIO()).environ)
    fetched = find_python("3.11.7", BASE, by_uv, wishes=PythonWishes(mirror=mirror.url))
    name = "lib/python3.11/_sysconfigdata__linux_x86_64-linux-gnu.py"
    told = site / "3.11.7" / name
    told.parent.mkdir(parents=True)
    told.write_bytes(TOLD.replace(b"/install/", b"/apps/3.11.7/").replace(b'"/install"', b'"/apps/3.11.7"').replace(b'"', b"'"))
    told.chmod(0o444)
    (told.parent / "_sysconfig_vars__linux.json").write_text('{\n "LIBDIR": "/apps/3.11.7/lib",\n "prefix": "/apps/3.11.7"\n}')
    elsewhere = Cache.open({"MLWF_CACHE": str(tmp_path / "elsewhere")})
    kept = find_python("3.11.7", BASE, kit_of(elsewhere, site), wishes=PythonWishes())
    assert (fetched.origin, kept.origin) == ("uv", "site")
    for python in (fetched, kept):
        assert python.folder
        variables = ast.literal_eval((python.folder / name).read_text().partition("build_time_vars = ")[2])
        expected = {"INCLUDEPY": "/mlwf/python/include/python3.11", "INSTALL": "/usr/bin/install -c", "prefix": "/mlwf/python"}
        assert {each: variables[each] for each in expected} == expected
    assert kept.folder
    newer = json.loads((kept.folder / "lib/python3.11/_sysconfig_vars__linux.json").read_text())
    assert newer == {"LIBDIR": "/mlwf/python/lib", "prefix": "/mlwf/python"}


def test_a_python_that_an_older_mlwf_kept_is_made_anew(cache: Cache, site: Path) -> None:
    """That of 0.1.0 names the folder of the job that made it, and its .pyc differ from one job to the next: so would the images."""
    older = cache.root / "pythons/3.11.7-x86_64-site"
    shutil.copytree(site / "3.11.7", older)
    (older / "of-0.1.0").touch()
    made = find_python("3.11.7", BASE, kit_of(cache, site), wishes=PythonWishes())
    assert made.folder
    assert not (made.folder / "of-0.1.0").exists()
    assert find_python("3.11.7", BASE, kit_of(cache, site), wishes=OFFLINE) == made


def test_another_patch_or_another_content_is_none(tmp_path: Path, mirror: Web) -> None:
    log = io.BytesIO()
    with pytest.raises(ProgramError, match=r"3\.11\.8"):
        _from_uv("3.11.8", tmp_path / "python", tmp_path, runner(tmp_path, log), mirror.url)
    with pytest.raises(ProgramError, match="ash mismatch"):
        _from_uv("3.11.7", tmp_path / "python", tmp_path, runner(tmp_path, log, sha256="0" * 64), mirror.url)
    assert not (tmp_path / "python").exists()
    said = log.getvalue().decode()
    assert "3.11.8" in said
    assert "ash mismatch" in said


def test_why_uv_fetched_none_is_said(cache: Cache, tmp_path: Path, mirror: Web) -> None:
    """And where another patch may be taken instead, that it was, and why."""
    kit = kit_of(cache, tmp_path / "none")
    log = kit.runner.log = io.BytesIO()
    kit.runner.environ.update(runner(tmp_path, io.BytesIO(), sha256="0" * 64).environ)
    base: Any = SimpleNamespace(facts=SimpleNamespace(pythons={"3.11.2": "/own"}, architecture="x86_64"))
    secret = "hunter2"
    for url, why in ((mirror.url, "ash mismatch"), (f"http://me:{secret}@127.0.0.1:9", "127.0.0.1:9/20240107")):
        with pytest.raises(MlwfError, match=rf"uv fetched none \(.*{why}.*\)\. Use a base image") as caught:
            find_python("3.11.7", base, kit, wishes=PythonWishes(mirror=url))
        assert secret not in str(caught.value)
    assert kit.told == []
    assert find_python("3.11.7", base, kit, wishes=PythonWishes(allow_minor=True, mirror=mirror.url)).version == "3.11.2"
    (warning,) = kit.told
    assert warning == "The image gets Python 3.11.2, not the model's 3.11.7: build.log says why uv fetched none"
    assert "ash mismatch" in log.getvalue().decode()
    assert find_python("3.11.2", base, kit, wishes=PythonWishes(allow_minor=True)).version == "3.11.2"
    assert kit.told == [warning], "the one that was wanted needs no word"


def test_what_the_site_keeps(tmp_path: Path) -> None:
    (tmp_path / "site/3.11.7/bin").mkdir(parents=True)
    (tmp_path / "site/3.11.7/bin/python3.11").touch()
    environ = {"MLWF_PYTHONS": str(tmp_path / "site")}
    assert _from_site("3.11.7", tmp_path / "python", environ)
    assert (tmp_path / "python/bin/python3.11").exists()
    assert not _from_site("3.11.8", tmp_path / "other", environ)
    assert not _from_site("../../etc", tmp_path / "other", environ)
    assert not _from_site("3.11.7", tmp_path / "other", {})


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_what_the_site_keeps_in_folders_that_are_read_only() -> None:
    """As EasyBuild's read-only-installdir and Nix keep it. A folder that was copied so is neither changed nor moved by its owner."""
    with folder_of(ACCOUNT) as place:
        (place / "site/3.11.7/bin").mkdir(parents=True)
        (place / "site/3.11.7/bin/python3.11").write_text("#!/bin/sh\n")
        told = place / "site/3.11.7/lib/python3.11/_sysconfigdata__linux_x86_64-linux-gnu.py"
        told.parent.mkdir(parents=True)
        told.write_bytes(TOLD)
        for each in (place / "site").rglob("*"):
            each.chmod(0o444 if each == told else 0o555)
        with account(ACCOUNT):
            kit = kit_of(Cache.open({"MLWF_CACHE": str(place / "cache")}), place / "site")
            made = find_python("3.11.7", BASE, kit, wishes=PythonWishes())
            assert made.folder
            (made.folder / "lib/python3.11/__pycache__").mkdir()
            assert (made.folder / "bin").stat().st_mode & 0o777 == 0o755
            assert prune(kit.cache, 0, now=time.time() + 1e6).left == 0


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """What MLWF_PYTHONS names: one Python, years old."""
    program = tmp_path / "site/3.11.7/bin/python3.11"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    age(tmp_path / "site")
    return tmp_path / "site"


def age(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (1, 1))


def kit_of(cache: Cache, site: Path, says: str = "3.11.7") -> Any:
    """As much of a build's as finding a Python takes, with a base in which every Python says that it is `says`."""
    tool = SimpleNamespace(run=lambda *_args, **_options: f"{says}\n")
    environ = {"PATH": os.environ["PATH"], "MLWF_PYTHONS": str(site)}
    steps = SimpleNamespace(waits=lambda: None)
    runs, told = Runner(environ, io.BytesIO()), list[str]()
    return SimpleNamespace(cache=cache, runner=runs, tool=tool, processors=1, steps=steps, told=told, warns=told.append)


BASE: Any = SimpleNamespace(facts=SimpleNamespace(pythons={}, architecture="x86_64"), made=lambda: SimpleNamespace(file=Path("base.sif")))
OFFLINE = PythonWishes(offline=True)


def test_a_python_that_was_used_just_now_is_not_pruned_nor_lost_without_network(cache: Cache, tmp_path: Path, site: Path) -> None:
    with pytest.raises(MlwfError, match="--fetch-only"):
        find_python("3.11.7", BASE, kit_of(cache, tmp_path / "none"), wishes=OFFLINE)
    made = find_python("3.11.7", BASE, kit_of(cache, site), wishes=PythonWishes())
    assert made.folder
    assert made.origin == "site"
    prune(cache, 0)
    age(cache.root / "pythons")
    used = find_python("3.11.7", BASE, kit_of(cache, tmp_path / "none"), wishes=OFFLINE)
    prune(cache, 0)
    kept = find_python("3.11.7", BASE, kit_of(cache, tmp_path / "none"), wishes=OFFLINE)
    assert made == used == kept
    assert made.folder.stat().st_ino == used.folder.stat().st_ino  # type: ignore[union-attr]
    assert (made.folder / "bin/python3.11").exists()


def test_another_patch_is_taken_where_that_is_allowed(cache: Cache, tmp_path: Path, site: Path, mirror: Web) -> None:
    allowed, bases = PythonWishes(allow_minor=True, mirror=mirror.url), {"3.11.2": "/old", "3.12.1": "/other", "3.11.10": "/newest"}
    none = kit_of(cache, tmp_path / "none")
    none.runner.environ["UV_PYTHON_DOWNLOADS"] = "never"
    base: Any = SimpleNamespace(facts=SimpleNamespace(pythons=bases, architecture="x86_64"))
    assert find_python("3.11.9", base, none, wishes=allowed) == Python("3.11.10", "/newest", None, "base")
    for wishes, offered in ((PythonWishes(), True), (allowed, False)):
        with pytest.raises(MlwfError, match=r"Use a base image with Python 3\.11\.9") as caught:
            find_python("3.11.9", BASE, none, wishes=wishes)
        assert ("--allow-python-minor" in str(caught.value)) is offered

    by_uv = kit_of(cache, tmp_path / "none")
    by_uv.runner.environ.update(runner(tmp_path, io.BytesIO()).environ)
    fetched = find_python("3.11.9", BASE, by_uv, wishes=allowed)
    assert (fetched.version, fetched.inside, fetched.origin) == ("3.11.7", "/mlwf/python/bin/python3.11", "uv")
    assert find_python("3.11.9", BASE, none, wishes=PythonWishes(allow_minor=True, offline=True)) == fetched

    for version in ("3.11.12", "3.12.1", "3.1.1"):
        shutil.copytree(site / "3.11.7", site / version)
    elsewhere = Cache.open({"MLWF_CACHE": str(tmp_path / "elsewhere")})
    kept = find_python("3.11.9", BASE, kit_of(elsewhere, site, "3.11.12"), wishes=allowed)
    assert (kept.version, kept.origin) == ("3.11.12", "site")
    with pytest.raises(MlwfError, match=r"should be Python 3\.11 is 3\.12\.1"):
        find_python("3.11.9", BASE, kit_of(Cache.open({"MLWF_CACHE": str(tmp_path / "third")}), site, "3.12.1"), wishes=allowed)


def test_a_python_that_other_jobs_use_is_never_taken_away_for_a_new_one(cache: Cache, site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = find_python("3.11.7", BASE, kit_of(cache, site), wishes=PythonWishes())
    assert made.folder
    inode = (made.folder / "bin/python3.11").stat().st_ino
    # Two jobs make it at once when a lease fails: neither saw the other's.
    monkeypatch.setattr("mlwf.image.environment.pythons._kept", lambda *_given: None)
    assert find_python("3.11.7", BASE, kit_of(cache, site), wishes=PythonWishes()) == made
    assert (made.folder / "bin/python3.11").stat().st_ino == inode
