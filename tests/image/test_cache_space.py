"""How much the cache holds, and what of it goes first."""

import contextlib
import errno
import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlwf.cli import main as cli
from mlwf.image import cache_space
from mlwf.image.cache import NOTE, REMOVED, Cache
from mlwf.image.cache_space import IN_USE_SECONDS, entries, prune

from tests.image.conftest import file_of


def test_prune_takes_the_oldest_and_nothing_in_use(cache: Cache, tmp_path: Path) -> None:
    now = time.time()
    for number, age in enumerate([3, 5, 4, 0]):
        kept = cache.put("images", str(number), file_of(tmp_path, "x" * 100_000))
        os.utime(kept.parent, (now - age * IN_USE_SECONDS,) * 2)
        os.utime(kept, (now - 9 * IN_USE_SECONDS,) * 2)
        os.utime(kept.parent / NOTE, (now - 9 * IN_USE_SECONDS,) * 2)
    assert [entry.path.name for entry in entries(cache)] == ["1", "2", "0", "3"]
    assert cache.get("images", "2")  # which is a use
    each = entries(cache)[0].size
    assert prune(cache, 2 * each).removed == 2
    assert sorted(path.name for path in (cache.root / "images").iterdir()) == ["2", "3"]
    last = prune(cache, 0)
    assert (last.removed, last.in_use) == (0, last.left)
    assert prune(cache, 0, now=now + 2 * IN_USE_SECONDS).left == 0


def test_a_node_whose_clock_is_ahead_prunes_nothing_in_use(cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.put("images", "k", file_of(tmp_path))
    ahead = time.time() + 2 * IN_USE_SECONDS
    monkeypatch.setattr(time, "time", lambda: ahead)
    assert prune(cache, 0).removed == 0


def test_what_was_used_by_a_clock_that_was_ahead_is_not_in_use_until_then(cache: Cache, tmp_path: Path) -> None:
    kept = cache.put("images", "k", file_of(tmp_path))
    for path in (kept.parent, *kept.parent.iterdir()):
        os.utime(path, (time.time() + 365 * 86400,) * 2)
    assert prune(cache, 0).left == 0


def test_what_a_clock_that_was_ahead_made_and_a_job_uses_now_stays(cache: Cache, tmp_path: Path) -> None:
    """A use changes the folder's time alone: what lies in it keeps the time at which it was made."""
    kept = cache.put("images", "k", file_of(tmp_path))
    for path in (kept.parent, *kept.parent.iterdir()):
        os.utime(path, (time.time() + 365 * 86400,) * 2)
    assert cache.get("images", "k")
    assert prune(cache, 0).removed == 0


def test_what_is_used_while_a_large_cache_is_counted_stays(cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        kept = cache.put("images", name, file_of(tmp_path, name))
        for path in (kept.parent, *kept.parent.iterdir()):
            os.utime(path, (1, 1))
    usual, counted = cache_space._size, []

    def size(path: Path, seen: set[tuple[int, int]]) -> int:
        counted.append(path.name)
        assert len(counted) == 1 or cache.get("images", counted[0])
        return usual(path, seen)

    monkeypatch.setattr(cache_space, "_size", size)
    done = prune(cache, 0)
    assert (done.removed, done.in_use > 0) == (1, True)
    assert cache.get("images", counted[0])


def test_a_full_disk_is_no_reason_to_keep_anything(cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a message advises there failed itself, since the lease of the work takes room."""
    kept = cache.put("images", "k", file_of(tmp_path))
    cache.put("addresses", "a", file_of(tmp_path))
    for path in (cache.root / "images", cache.root / "addresses"):
        for each in (*path.iterdir(), *path.glob("*/*")):
            os.utime(each, (1, 1))

    def write(_file: int, _content: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (kept.parent.parent / f"{REMOVED}by-one-that-was-killed").mkdir()
    monkeypatch.setattr(os, "write", write)
    assert prune(cache, 0).left == 0
    assert [list(path.iterdir()) for path in cache.root.iterdir()] == [[]] * 4


def test_what_leads_to_a_base_goes_after_it(cache: Cache, tmp_path: Path) -> None:
    now = time.time()
    base = cache.put("bases", "b", file_of(tmp_path, "x" * 100_000)).parent
    for name in ("addresses", "digests"):
        (cache.root / name).mkdir()
        (cache.root / name / "a").write_text("sha256:1 python@sha256:1")
        os.utime(cache.root / name / "a", (now - 9 * IN_USE_SECONDS,) * 2)
    for path in (base, *base.iterdir()):
        os.utime(path, (now - 3 * IN_USE_SECONDS,) * 2)
    assert prune(cache, 50_000).removed == 1
    assert {entry.kind for entry in entries(cache)} == {"addresses", "digests"}
    assert prune(cache, 0).left == 0


def test_a_folder_that_is_there_already_stays(cache: Cache, tmp_path: Path) -> None:
    kept = []
    for content in ("first", "second"):
        (tmp_path / "made").mkdir()
        file_of(tmp_path / "made", content)
        os.utime(tmp_path / "made", (1, 1))  # as what it was copied from
        with cache.work() as work:
            kept.append(cache.put_folder("pythons", "3.11.7", (tmp_path / "made").rename(work / "made")))
    assert kept[0] == kept[1]
    assert (kept[0] / "made").read_text() == "first"
    assert list((cache.root / "work").iterdir()) == []
    assert prune(cache, 0).removed == 0, "it was used just now"


def test_a_file_that_two_entries_share_counts_once(cache: Cache, tmp_path: Path) -> None:
    kept = cache.put("images", "a", file_of(tmp_path, "x" * 200_000))
    os.link(kept, tmp_path / "linked")
    cache.put("images", "b", tmp_path / "linked")
    assert sum(entry.size for entry in entries(cache)) < 300_000


@contextlib.contextmanager
def nobody() -> Iterator[None]:
    """Another user, in this process."""
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_a_shared_layer_for_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Filled as the documentation says, it was hit by nobody but who had filled it."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        site, home = Cache.open({"MLWF_CACHE": f"{name}/site"}), Path(name, "home")
        image = file_of(tmp_path, "image")
        image.chmod(0o770)  # as the umask 002 left it
        kept = site.put("images", "k", image)
        site.put("locks", "k", file_of(tmp_path, "lock"))
        home.mkdir()
        os.chown(home, 65534, 65534)
        monkeypatch.setenv("MLWF_CACHE", f"{home}/cache")
        monkeypatch.setenv("MLWF_SHARED_CACHE", str(site.root))

        def got() -> Path | None:
            with nobody():
                return Cache.open(os.environ).get("images", "k")

        def told() -> str:
            with nobody():
                assert cli.run(["cache", "info"]) == 0
                plain = " ".join(capsys.readouterr().out.split())
                assert cli.run(["cache", "info", "--json"]) == 0
            assert bool(json.loads(capsys.readouterr().out)["unreadable"]) == ("cannot read" in plain)
            return plain

        assert got() is None
        assert "Permission denied" in told()
        page = (Path(__file__).parents[2] / "docs/explanation/image-inputs.md").read_text()
        (opens,) = re.findall(r"`cd /apps/mlwf-cache && (chmod [^`]*)`", page)
        (site.root / "bases").mkdir(exist_ok=True)
        subprocess.run(["/bin/sh", "-ec", opens], cwd=site.root, check=True)
        assert got() == kept
        assert f"Shared, read-only: {site.root}" in told()
        kept.chmod(0o700)
        assert got() is None, "nor is it taken for one that can be used"
        assert f"{kept}: Permission denied" in told()


def test_the_command(cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("MLWF_CACHE", str(cache.root))
    kept = cache.put("images", "k", file_of(tmp_path, "x" * 100_000))
    assert cli.run(["cache", "info", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["folder"] == str(cache.root)
    assert told["kinds"]["images"]["entries"] == 1
    assert told["bytes"] == told["kinds"]["images"]["bytes"] >= 100_000
    assert told["files"] == told["kinds"]["images"]["files"] == 3  # as a quota counts: the folder, too
    os.link(kept, kept.with_name("again"))
    assert cli.run(["cache", "info"]) == 0
    assert re.search(r"images +1 +3 +0\.00", capsys.readouterr().out)
    for vague in (["cache", "prune"], ["cache", "prune", "--all", "--max-gb", "1"]):
        assert cli.run(vague) == 2
    assert cli.run(["cache", "prune", "--all"]) == 0
    assert "used within the last hour" in capsys.readouterr().out
    for path in (kept.parent, *kept.parent.iterdir()):
        os.utime(path, (1, 1))
    assert cli.run(["cache", "prune", "--max-gb", "0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bytes"] == 0
    assert cli.run(["cache", "info"]) == 0
    assert str(cache.root) in capsys.readouterr().out
