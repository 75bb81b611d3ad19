"""The tarball's bytes: gzip on all cores, tar without traces, size promise, safe names, the folder that appears when it is whole."""

import datetime as dt
import errno
import gzip
import hashlib
import io
import json
import os
import random
import subprocess
import sys
import tarfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlwf.ending import Terminated
from mlwf.errors import MlwfError
from mlwf.export.gzip_stream import BLOCK, ParallelGzip
from mlwf.export.tarball import TarWriter, with_directories
from mlwf.transfer import lease_file, workspace
from mlwf.transfer.paths import UnsafePathError, check_path, check_tree
from mlwf.transfer.workspace import PREFIX, SILENT_SECONDS, Workspace

TEXT = b"".join(path.read_bytes() for path in sorted(Path(subprocess.__file__).parent.glob("[a-p]*.py")))[: 6 << 20]
WEIGHTS = random.Random(1).randbytes(3 << 20)  # noqa: S311  # the same bytes each time


def _packed(chunks: list[bytes], threads: int = 2) -> tuple[bytes, ParallelGzip]:
    out = io.BytesIO()
    with ParallelGzip(out, threads=threads) as file:
        for chunk in chunks:
            file.write(chunk)
    return out.getvalue(), file


@settings(max_examples=30, deadline=None)
@given(st.lists(st.binary(max_size=3000), max_size=8), st.integers(1, 4))
def test_any_bytes_come_back(chunks: list[bytes], threads: int) -> None:
    packed, file = _packed(chunks, threads)
    assert gzip.decompress(packed) == b"".join(chunks)
    assert (file.size, file.sha256) == (len(packed), hashlib.sha256(packed).hexdigest())


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 7])
def test_block_borders_and_other_readers(size: int, tmp_path: Path) -> None:
    data = (TEXT + WEIGHTS)[-size:] if size else b""
    packed, _file = _packed([data])
    (tmp_path / "x.gz").write_bytes(packed)
    read = subprocess.run(["gzip", "-dc", tmp_path / "x.gz"], capture_output=True, check=True)
    assert read.stdout == data


def test_equal_content_gives_equal_bytes_however_it_is_cut() -> None:
    data = (TEXT + WEIGHTS[: 1 << 20]) * 4  # more blocks than are held, so that what became of some decides about others
    whole, _ = _packed([data], threads=1)
    cut, _ = _packed([data[i : i + 70_001] for i in range(0, len(data), 70_001)], threads=3)
    assert whole == cut


LONG = TEXT * (1 + 40 * BLOCK // len(TEXT))  # so long that most blocks are not sampled


@pytest.mark.parametrize(
    "data", [TEXT, LONG, WEIGHTS, TEXT + WEIGHTS, b"0" * (4 << 20)], ids=["text", "long text", "weights", "both", "zeros"]
)
def test_at_most_15_percent_larger_than_gzip_6(data: bytes) -> None:
    packed, _file = _packed([data])
    assert len(packed) <= 1.15 * len(zlib.compress(data, 6)) + 64 * (len(data) // BLOCK + 1)


class _Full(io.RawIOBase):
    def write(self, data: object) -> int:
        raise OSError(28, "No space left on device")


def test_a_disk_error_reaches_the_writer() -> None:
    with pytest.raises(OSError, match="No space"), ParallelGzip(_Full()) as file:  # type: ignore[arg-type]
        file.write(b"x")


def test_tar_with_long_and_foreign_names() -> None:
    files = {"a/" + "n" * 200 + "/" + "m" * 150: b"1", "日本/ファイル.txt": b"2" * 513, "a.txt": b"", "a/b": b"3" * 512}
    out = io.BytesIO()
    tar = TarWriter(out, mtime=1_700_000_000)
    for name, is_folder in with_directories(list(files)):
        if is_folder:
            tar.add_directory(name)
        else:
            tar.add_file(name, len(files[name]), iter([files[name]]))
    tar.close()
    out.seek(0)
    with tarfile.open(fileobj=out) as archive:
        found = {entry.name: archive.extractfile(entry).read() for entry in archive if entry.isreg()}  # type: ignore[union-attr]
        assert {entry.name for entry in archive if entry.isdir()} == {"a", "a/" + "n" * 200, "日本"}
        assert {(entry.mtime, entry.mode) for entry in archive if entry.isreg()} == {(1_700_000_000, 0o640)}
    assert found == files
    assert out.getbuffer().nbytes % tarfile.RECORDSIZE == 0


@pytest.mark.parametrize("chunks", [[b"12"], [b"1234"], []])
def test_a_file_of_another_size_than_announced_is_refused(chunks: list[bytes]) -> None:
    with pytest.raises(ValueError, match="3 bytes were announced"):
        TarWriter(io.BytesIO(), mtime=0).add_file("x", 3, chunks)


@pytest.mark.parametrize(
    "path", ["", "/x", "../x", "x/..", "x//y", "./x", "x\0y", "x\ny", "x\x7f", "x\u2028y", "x\ud800", "n" * 256, "d/" * 1600 + "x", "x/"]
)
def test_unsafe_paths(path: str) -> None:
    with pytest.raises(UnsafePathError):
        check_path(path)


@pytest.mark.parametrize("path", ["MLmodel", "a/b c/日本.bin", "...", "..a", "~", "-rf", "a\\b"])
def test_safe_paths(path: str) -> None:
    assert check_path(path) == path


def test_a_name_is_a_file_or_a_folder_and_there_once() -> None:
    check_tree(["a", "b/c", "b/d"])
    with pytest.raises(UnsafePathError, match="both as a file and as a folder"):
        check_tree(["a", "a/b"])
    with pytest.raises(UnsafePathError, match="twice"):
        check_tree(["a", "a"])


def _clock(*seconds: int) -> list[dt.datetime]:
    return [dt.datetime(2026, 11, 24, 9, 0, second, tzinfo=dt.UTC) for second in seconds]


def test_a_taken_name_is_stepped_over(tmp_path: Path) -> None:
    (tmp_path / "MLWFExportModel_20261124090001").mkdir()
    times, slept = iter(_clock(1, 2)), []
    with Workspace(tmp_path, clock=lambda: next(times), sleep=slept.append) as space:
        (space.path / "x").write_text("1")
        assert space.path.name.startswith(".")
        assert space.publish().name == "MLWFExportModel_20261124090002"
    assert slept == [1.0]
    assert (tmp_path / "MLWFExportModel_20261124090002" / "x").read_text() == "1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "folder"
    made.mkdir()
    return made


def test_two_exports_in_one_second_do_not_meet(folder: Path) -> None:
    first, second = iter(_clock(1)), iter(_clock(1, 2))
    with Workspace(folder, clock=lambda: next(first)) as one, Workspace(folder, clock=lambda: next(second), sleep=lambda _s: None) as two:
        assert one.path != two.path
        one.publish()
        two.publish()
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("error", [Terminated(), KeyboardInterrupt(), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))])
def test_who_is_told_to_end_before_the_lease_is_there_leaves_nothing(
    error: BaseException, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Later runs find what was left by its lease, and so this one was never found."""

    def hold(*_file: Path, **_how: object) -> None:
        raise error

    monkeypatch.setattr(workspace, "hold", hold)
    with pytest.raises((Terminated, KeyboardInterrupt, MlwfError)), Workspace(folder):
        pass
    assert list(folder.iterdir()) == []


def test_an_export_that_was_shown_and_not_told_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file server that starts anew is asked again: it was told as a failure, beside the whole folder."""
    usual = Path.rename

    def rename(path: Path, target: Path) -> Path:
        usual(path, target)
        return usual(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    with Workspace(folder, sleep=lambda _s: pytest.fail("nobody took the name")) as space:
        (space.path / "x").write_text("1")
        shown = space.publish()
    assert [path.name for path in folder.iterdir()] == [shown.name]
    assert (shown / "x").read_text() == "1"


def _fail_in(folder: Path) -> None:
    with Workspace(folder) as space:
        (space.path / "a").mkdir()
        (space.path / "a" / "b").write_text("x")
        space.check_space(1 << 60)


def test_a_failure_removes_everything(folder: Path) -> None:
    with pytest.raises(MlwfError, match="not enough space"):
        _fail_in(folder)
    assert list(folder.iterdir()) == []


KILLED = """
import sys
from pathlib import Path
from mlwf.transfer.workspace import Workspace
with Workspace(Path(sys.argv[1]), prefix=sys.argv[2]) as space:
    (space.path / "model").mkdir(0o750)
    (space.path / "model" / "weights").write_text("half")
    print(space.path, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def run_of(folder: Path) -> Iterator[Callable[[str], "subprocess.Popen[str]"]]:
    """Starts a run that is at its work in the folder."""
    started: list[subprocess.Popen[str]] = []

    def start(prefix: str) -> "subprocess.Popen[str]":
        argv = [sys.executable, "-c", KILLED, str(folder), prefix]
        started.append(subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        assert started[-1].stdout
        assert Path(started[-1].stdout.readline().strip(), "model/weights").is_file()
        return started[-1]

    yield start
    for run in started:
        run.kill()
        run.communicate()


def test_the_next_run_removes_what_a_killed_one_left(folder: Path, run_of: Callable[[str], "subprocess.Popen[str]"]) -> None:
    killed, other, living = run_of(PREFIX), run_of("MLWFCreateImage_"), run_of("MLWFOther_")
    for run in (killed, other):
        run.kill()
        run.wait()
    left = {path.name for path in folder.iterdir()}
    assert len(left) == 6
    with Workspace(folder) as space:
        own = {space.path.name, space.path.with_suffix(".lease").name}
        assert {path.name for path in folder.iterdir()} == own | {name for name in left if not name.startswith(f".{PREFIX}")}
    with Workspace(folder, prefix="MLWFCreateImage_"), Workspace(folder, prefix="MLWFOther_"):
        pass
    living.communicate("")
    assert list(folder.iterdir()) == []


def test_what_may_be_at_work_or_is_a_strangers_stays(folder: Path) -> None:
    mark = json.dumps({**lease_file.whoami(), "host": "node-17"})
    elsewhere, linked, bare = (folder / f".{PREFIX}2026112409000{number}.partial" for number in range(3))
    for path in (elsewhere, bare, folder / "kept"):
        path.mkdir()
        (path / "file").write_text("half")
    linked.symlink_to(folder / "kept")
    for path in (elsewhere, linked):
        path.with_suffix(".lease").write_text(mark)
    hour, day = time.time() - 3600, time.time() - SILENT_SECONDS - 5
    os.utime(elsewhere.with_suffix(".lease"), (hour, hour))
    os.utime(linked.with_suffix(".lease"), (day, day))
    with Workspace(folder):
        assert (elsewhere / "file").exists(), "a suspended job is no dead one"
    assert (folder / "kept/file").exists()
    os.utime(elsewhere.with_suffix(".lease"), (day, day))
    if os.geteuid() == 0:
        os.chown(elsewhere, 65534, 65534)
        with Workspace(folder):
            assert (elsewhere / "file").exists(), "of another user"
        os.chown(elsewhere, 0, 0)
        elsewhere.with_suffix(".lease").write_text(mark)
        os.utime(elsewhere.with_suffix(".lease"), (day, day))
    with Workspace(folder):
        assert not elsewhere.exists()
    assert (bare / "file").exists(), "it has no lease"


def test_what_could_not_be_removed_is_tried_again(
    folder: Path, run_of: Callable[[str], "subprocess.Popen[str]"], monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = run_of(PREFIX)
    killed.kill()
    killed.wait()
    left = list(folder.iterdir())
    with monkeypatch.context() as bad_day:
        bad_day.setattr("shutil.rmtree", lambda *_path, **_options: None)
        with Workspace(folder, prefix="MLWFOther_"), Workspace(folder):
            assert all(path.exists() for path in left)
    with Workspace(folder, prefix="MLWFOther_"), Workspace(folder):
        assert not any(path.exists() for path in left)


def test_what_it_could_not_remove_of_its_own_is_found_by_the_next_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as bad_day:
        bad_day.setattr("shutil.rmtree", lambda *_path, **_options: None)
        with Workspace(folder) as space:
            (space.path / "file").write_text("x")
    assert {path.suffix for path in folder.iterdir()} == {".partial", ".lease"}
    with Workspace(folder):
        assert not (space.path / "file").exists()
    assert list(folder.iterdir()) == []
