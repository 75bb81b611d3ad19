"""The cache: complete entries or none, whoever is killed, however many are at it, and whatever others put there."""

import errno
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlwf.cli.image_progress import TerminalReporter
from mlwf.ending import Terminated
from mlwf.errors import MlwfError
from mlwf.image.cache import CONTENT, LEASES, NOTE, Cache, remove_tree
from mlwf.image.cache_space import IN_USE_SECONDS, prune
from mlwf.image.steps import Steps
from mlwf.transfer import lease_file
from rich.console import Console

from tests.image.conftest import file_of

DEADLINE = 60.0


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def python() -> Iterator[Start]:
    """Starts Python with a script and arguments; whatever still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(script: str, *args: object) -> "subprocess.Popen[str]":
        argv = [sys.executable, "-c", script, *map(str, args)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen(argv, text=True, **pipes))  # type: ignore[call-overload]
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_what_was_put_is_got_and_only_mine(cache: Cache, tmp_path: Path) -> None:
    assert cache.get("images", "k") is None
    made = file_of(tmp_path)
    made.chmod(0o750)
    kept = cache.put("images", "k", made)
    assert not made.exists()
    assert cache.get("images", "k") == kept
    assert (kept.read_text(), stat.S_IMODE(kept.stat().st_mode)) == ("content", 0o750)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (cache.root, kept.parent.parent, kept.parent)] == [0o700] * 3
    # The same again takes its place.
    assert cache.put("images", "k", file_of(tmp_path, "newer")).read_text() == "newer"


def test_a_key_is_of_all_its_parts() -> None:
    assert Cache.key("a", "b") == Cache.key("a", "b") != Cache.key("ab") != Cache.key("a", "b", "")
    assert Cache.key(Path("/\udc83\udc81")) != Cache.key(Path("/\udc83\udc82")), "of folders whose names are no text"


@pytest.mark.parametrize("folder", ["writable", "another's", "a file"])
def test_where_it_may_not_be(tmp_path: Path, folder: str) -> None:
    root = tmp_path / "cache"
    if folder == "a file":
        root.write_text("")
    else:
        root.mkdir()
        root.chmod(0o770 if folder == "writable" else 0o700)
        if folder == "another's":
            if os.geteuid() != 0:
                pytest.skip("only root can give a folder away")
            os.chown(root, 65534, 65534)
    with pytest.raises(MlwfError, match="Set MLWF_CACHE to a folder of yours"):
        Cache.open({"MLWF_CACHE": str(root)})


def test_the_usual_places(tmp_path: Path) -> None:
    assert Cache.open({"HOME": str(tmp_path)}).root == tmp_path / ".cache/mlwf"
    assert Cache.open({"HOME": "/nowhere", "XDG_CACHE_HOME": str(tmp_path / "x")}).root == tmp_path / "x/mlwf"


@pytest.mark.parametrize("change", ["content", "longer", "note", "no note", "a link"])
def test_what_was_changed_is_thrown_away(cache: Cache, tmp_path: Path, change: str) -> None:
    kept = cache.put("images", "k", file_of(tmp_path))
    if change == "content":
        kept.write_text("CONTENT")
    elif change == "longer":
        kept.write_text("content and more")
    elif change == "note":
        (kept.parent / NOTE).write_text("{")
    elif change == "no note":
        (kept.parent / NOTE).unlink()
    else:
        kept.unlink()
        kept.symlink_to("/etc/hostname")
    assert cache.get("images", "k") is None
    assert not kept.parent.exists()


def test_what_was_only_touched_stays(cache: Cache, tmp_path: Path) -> None:
    kept = cache.put("images", "k", file_of(tmp_path))
    os.utime(kept, (1, 1))
    assert cache.get("images", "k") == kept


def test_a_shared_layer_is_read_and_never_written(tmp_path: Path) -> None:
    site = Cache.open({"MLWF_CACHE": str(tmp_path / "site")})
    site.put("bases", "b", file_of(tmp_path, "base"))
    mine = Cache.open({"MLWF_CACHE": str(tmp_path / "mine"), "MLWF_SHARED_CACHE": f"/nowhere:{tmp_path / 'site'}"})
    before = {path: path.lstat().st_mtime_ns for path in site.root.rglob("*")}
    assert mine.get("bases", "b") == site.root / "bases/b" / CONTENT
    assert {path: path.lstat().st_mtime_ns for path in site.root.rglob("*")} == before
    mine.put("bases", "b", file_of(tmp_path, "mine"))
    assert mine.get("bases", "b") == mine.root / "bases/b" / CONTENT


@pytest.mark.parametrize("what", [".", "bases", "bases/b", f"bases/b/{CONTENT}", f"bases/b/{NOTE}"])
@pytest.mark.parametrize("fault", ["group may write", "another's"])
def test_a_shared_layer_that_others_can_write_is_not_believed(tmp_path: Path, what: str, fault: str) -> None:
    site = Cache.open({"MLWF_CACHE": str(tmp_path / "site")})
    site.put("bases", "b", file_of(tmp_path, "base"))
    mine = Cache.open({"MLWF_CACHE": str(tmp_path / "mine"), "MLWF_SHARED_CACHE": str(site.root)})
    assert mine.get("bases", "b")
    path = site.root / what
    if fault == "group may write":
        path.chmod(stat.S_IMODE(path.stat().st_mode) | 0o020)
    elif os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    else:
        os.chown(path, 65534, 65534)
    assert mine.get("bases", "b") is None
    assert (site.root / "bases/b" / CONTENT).read_text() == "base"


def test_a_shared_entry_with_another_content_is_not_believed(tmp_path: Path) -> None:
    site = Cache.open({"MLWF_CACHE": str(tmp_path / "site")})
    kept = site.put("bases", "b", file_of(tmp_path, "base"))
    kept.write_text("evil")
    mine = Cache.open({"MLWF_CACHE": str(tmp_path / "mine"), "MLWF_SHARED_CACHE": str(site.root)})
    assert mine.get("bases", "b") is None
    assert kept.exists()


PUTTER = """
import sys
from pathlib import Path
from mlwf.image.cache import Cache
cache, name = Cache(Path(sys.argv[1])), sys.argv[2]
with cache.work() as work:
    for round in range(40):
        made = work / "made"
        made.write_text("x" * 50_000)
        cache.put("images", "k", made)
        got = cache.get("images", "k")
        assert got is None or got.read_text() == "x" * 50_000
"""


def test_many_at_once_see_whole_entries_or_none(cache: Cache, python: Start) -> None:
    writers = [python(PUTTER, cache.root, number) for number in range(4)]
    for writer in writers:
        _out, err = writer.communicate(timeout=DEADLINE)
        assert writer.returncode == 0, err
    kept = cache.get("images", "k")
    assert kept
    assert kept.read_text() == "x" * 50_000
    assert [path.name for path in (cache.root / "images").iterdir()] == ["k"]
    assert list((cache.root / "work").iterdir()) == list((cache.root / "leases").iterdir()) == []


KILLED = """
import sys, time
from pathlib import Path
from mlwf.image import cache as module
cache = module.Cache(Path(sys.argv[1]))
real = module._rename_into
def stops(fresh, entry):
    print("made", flush=True)
    sys.stdin.read()
module._rename_into = stops
with cache.lock("image-k"), cache.work() as work:
    (work / "made").write_text("half")
    cache.put("images", "k", work / "made")
"""


def test_a_killed_job_leaves_nothing_that_counts(cache: Cache, python: Start) -> None:
    job = python(KILLED, cache.root)
    assert job.stdout
    assert job.stdout.readline() == "made\n"
    assert cache.get("images", "k") is None
    assert len(list((cache.root / "leases").iterdir())) == 3  # the entry that is made, the job, and what it puts
    cache.sweep()
    assert list((cache.root / "work").iterdir())  # of a job that lives
    job.send_signal(signal.SIGKILL)
    job.wait()
    assert cache.get("images", "k") is None
    with cache.lock("image-k"):  # its lease is nobody's any more
        pass
    cache.sweep()
    assert list((cache.root / "work").iterdir()) == list((cache.root / "leases").iterdir()) == []
    assert prune(cache, 0, now=time.time() + 2 * IN_USE_SECONDS).left == 0
    assert list((cache.root / "images").iterdir()) == []


def test_a_job_elsewhere_that_stands_still_keeps_its_work_for_a_day(cache: Cache) -> None:
    """As one that the batch system has suspended: what it made for hours was removed under it after minutes."""
    with cache.work() as work:
        (lease_of_work,) = (cache.root / LEASES).iterdir()
        lease_of_work.write_text(json.dumps({**lease_file.whoami(), "host": "another"}))
        other = cache.root / LEASES / "image-1"
        other.write_text(lease_of_work.read_text())
        for age, left in ((lease_file.OVER_SECONDS + 60, True), (25 * 3600.0, False)):
            for each in (lease_of_work, other):
                if each.exists():
                    os.utime(each, (time.time() - age,) * 2)
            cache.sweep()
            assert (work.exists(), lease_of_work.exists(), other.exists()) == (left, left, False)


@pytest.mark.parametrize("age", [25 * 3600, -365 * 86400])
def test_work_that_nobody_holds_a_lease_of_goes_after_a_day(cache: Cache, age: float) -> None:
    """What a program that outlived its job has made again."""
    orphan = cache.root / "work" / "5ae6"
    (orphan / "base").mkdir(parents=True)
    cache.sweep()
    assert orphan.exists(), "on NFS, the lease of a job elsewhere may not be seen yet"
    os.utime(orphan, (time.time() - age,) * 2)
    cache.sweep()
    assert not orphan.exists()


ALONE = """
import os, sys
from pathlib import Path
from mlwf.transfer.lease_file import hold
file, inside = Path(sys.argv[1]), Path(sys.argv[2])
for round in range(25):
    with hold(file, pause=0.001):
        os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
        inside.unlink()
"""


def test_one_holder_at_a_time_and_the_dead_give_way(tmp_path: Path, python: Start) -> None:
    file = tmp_path / "lease"
    file.write_text(json.dumps({**lease_file.whoami(), "pid": 2**22 + 1, "started": 7}))  # of a process that is not there
    holders = [python(ALONE, file, tmp_path / "inside") for _number in range(4)]
    for holder in holders:
        _out, err = holder.communicate(timeout=DEADLINE)
        assert holder.returncode == 0, err
    assert list(tmp_path.iterdir()) == []


def test_a_lease_that_was_moved_while_its_holder_let_go_is_nobodys(tmp_path: Path) -> None:
    """Who took it for a dead one's puts it back, when its holder has left already and still lives."""
    file, aside = tmp_path / "lease", tmp_path / "aside"
    with lease_file.hold(file):
        file.rename(aside)
    assert lease_file.is_over(aside)
    aside.rename(file)
    with lease_file.hold(file, waits=lambda: pytest.fail("for nobody")):
        pass
    assert list(tmp_path.iterdir()) == []


def test_who_waits_long_asks_seldom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, pauses = tmp_path / "lease", []
    file.write_text(json.dumps({**lease_file.whoami(), "host": "another"}))

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 30:
            file.unlink()

    monkeypatch.setattr(lease_file.time, "sleep", sleep)
    with lease_file.hold(file):
        pass
    assert pauses[0] <= 0.1
    assert len(pauses) == 30
    assert sum(pauses) > 60, "a minute's wait is thirty looks"


def test_a_file_system_without_hard_links(cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(_source: object, _target: object) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", link)
    with cache.lock("k"), cache.work() as work:
        assert not lease_file.is_over(cache.root / "leases/k")
        cache.put("images", "k", file_of(work))
    assert cache.get("images", "k")
    assert list((cache.root / "leases").iterdir()) == []


def test_a_number_that_another_process_has_now_is_not_the_holder(tmp_path: Path) -> None:
    file = tmp_path / "lease"
    file.write_text(json.dumps({**lease_file.whoami(), "started": 1}))
    assert lease_file.is_over(file)
    file.write_text(json.dumps(lease_file.whoami()))
    assert not lease_file.is_over(file)


HOLDS = """
import os, signal, sys
from pathlib import Path
from mlwf.transfer.lease_file import hold

with hold(Path(sys.argv[1])):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_holder_that_nobody_has_asked_after_yet(tmp_path: Path) -> None:
    """A batch system kills a job with all its parents, and who inherits its processes may take a while to ask how they ended."""
    file = tmp_path / "lease"
    with subprocess.Popen([sys.executable, "-c", HOLDS, file]) as holder:
        os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
        assert file.exists()
        assert lease_file.is_over(file)


@pytest.mark.parametrize("text", [json.dumps({"host": "node-17", "pid": 1, "started": 1}), "", "{", "[]"])
def test_a_holder_elsewhere_is_believed_until_it_is_silent_for_minutes(tmp_path: Path, text: str) -> None:
    file = tmp_path / "lease"
    file.write_text(text)
    assert not lease_file.is_over(file)
    old = time.time() - lease_file.OVER_SECONDS - 5
    os.utime(file, (old, old))
    assert lease_file.is_over(file)
    assert not lease_file.is_over(tmp_path / "none")


def test_a_holder_elsewhere_that_renewed_it_by_a_clock_far_ahead_is_waited_for_no_year(tmp_path: Path) -> None:
    """The file server's clock was ahead, and is set right; the holder is dead. One that lives has renewed it since."""
    file = tmp_path / "lease"
    file.write_text(json.dumps({"host": "node-17", "pid": 1, "started": 1}))
    for ahead, over in ((lease_file.AHEAD_SECONDS - 60, False), (lease_file.AHEAD_SECONDS + 60, True)):
        os.utime(file, (time.time() + ahead,) * 2)
        assert lease_file.is_over(file) is over
    assert not lease_file.is_over(file, silent=86400), "who may only be suspended gets as long as always"


def test_a_lease_is_renewed_and_its_waiter_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_file, "RENEW_SECONDS", 0.02)
    file, told = tmp_path / "lease", []
    with lease_file.hold(file):
        os.utime(file, (1, 1))
        until(lambda: file.stat().st_mtime > 1)

        def waits() -> None:
            told.append("waiting")
            file.unlink()

        with lease_file.hold(file, waits=waits):
            assert told == ["waiting"]


@pytest.mark.parametrize("as_json", [False, True])
def test_who_waits_for_another_job_is_told(cache: Cache, capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    class Impatient(TerminalReporter):
        def waits(self) -> None:
            super().waits()
            (cache.root / LEASES / "image-1").unlink()

    with cache.lock("image-1"), cache.lock("image-1", waits=Steps(Impatient(Console(stderr=True), as_json=as_json)).waits):
        said = capsys.readouterr().err
    assert json.loads(said) == {"state": "waits"} if as_json else "waits for it" in said


@pytest.mark.parametrize("ends", [KeyboardInterrupt, Terminated])
def test_who_is_told_to_end_while_a_tree_is_removed_removes_it_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: type[BaseException]
) -> None:
    tree, usual = tmp_path / "tree", os.unlink
    tree.mkdir()
    for name in ("a", "b", "c"):
        (tree / name).touch()

    def interrupted(*what: object, **how: object) -> None:
        monkeypatch.setattr(os, "unlink", usual)
        raise ends

    monkeypatch.setattr(os, "unlink", interrupted)
    with pytest.raises(ends):
        remove_tree(tree)
    assert not tree.exists()
