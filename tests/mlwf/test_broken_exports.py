"""Bad days of an export: nothing half-made may be left, and what can be cured by another try is tried again."""

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlwf.cli.export_model import TerminalReporter
from mlwf.errors import MlwfError
from mlwf.export.run import Wanted, export
from mlwf.report import stderr
from mlwf.transfer.workspace import Workspace

from tests.mlwf.exporting import arguments, members, nothing_left, run, surroundings, the_package
from tests.mlwf.faults import Fault, FaultyProxy
from tests.mlwf.tracking import MLMODEL, Tracking
from tests.support.box import until

pytestmark = pytest.mark.box

WEIGHTS = os.urandom(3 << 20)
FILES = {"MLmodel": MLMODEL, "weights.bin": WEIGHTS}
Make = Callable[..., FaultyProxy]


@pytest.fixture(scope="session", autouse=True)
def _model(tracking: Tracking) -> None:
    tracking.register("heavy", FILES)


@pytest.fixture
def proxy() -> Iterator[Make]:
    made: list[FaultyProxy] = []

    def make(upstream: str, rule: Callable[[str, int], Fault | None], *, keep_host: bool = False) -> FaultyProxy:
        made.append(FaultyProxy(upstream, rule, keep_host=keep_host))
        return made[-1]

    yield make
    for each in made:
        each.stop()


def _weights(fault: Fault, times: int) -> Callable[[str, int], Fault | None]:
    return lambda path, count: fault if path.endswith("weights.bin") and count < times else None


CURABLE = [Fault(cut=100_000), Fault(status=503), Fault(status=429), Fault(cut=0)]


@pytest.mark.parametrize("fault", CURABLE, ids=str)
def test_a_download_that_breaks_is_tried_again(tracking: Tracking, tmp_path: Path, proxy: Make, fault: Fault) -> None:
    broken = proxy(tracking.box.origin, _weights(fault, 2))
    done = run(tmp_path / "w", tracking.login, *arguments(f"{broken.url}/mlflow/", "heavy", "--through", "server"))
    assert done.returncode == 0, done.stderr
    assert members(the_package(tmp_path / "w")) == FILES


def test_the_same_from_the_store(tracking: Tracking, tmp_path: Path, proxy: Make) -> None:
    broken = proxy(tracking.store.endpoint_url, _weights(Fault(cut=1_500_000), 2), keep_host=True)
    environ = {**tracking.environ, "MLFLOW_S3_ENDPOINT_URL": broken.url}
    done = run(tmp_path / "w", environ, *arguments(tracking.url, "heavy", "--through", "store"))
    assert done.returncode == 0, done.stderr
    assert len([path for path in broken.seen if path.endswith("weights.bin")]) == 3
    assert members(the_package(tmp_path / "w")) == FILES


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (Fault(body=WEIGHTS[:-1]), "has a different size from the one listed"),
        (Fault(body=b"<html>"), "has a different size from the one listed"),
        (Fault(status=404), "HTTP 404"),
    ],
    ids=["short", "html", "gone"],
)
def test_a_wrong_answer_ends_it(tracking: Tracking, tmp_path: Path, proxy: Make, fault: Fault, why: str) -> None:
    broken = proxy(tracking.box.origin, _weights(fault, 99))
    done = run(tmp_path / "w", tracking.login, *arguments(f"{broken.url}/mlflow", "heavy", "--through", "server"))
    assert done.returncode == 1
    assert why in done.stderr
    assert nothing_left(tmp_path / "w")


def test_content_that_changes_between_two_tries_is_refused(tracking: Tracking, tmp_path: Path, proxy: Make) -> None:
    faults = [Fault(cut=2_000_000), Fault(flip=True)]
    broken = proxy(tracking.box.origin, lambda path, count: faults[count] if path.endswith("weights.bin") else None)
    done = run(tmp_path / "w", tracking.login, *arguments(f"{broken.url}/mlflow", "heavy", "--through", "server"))
    assert done.returncode == 1
    assert "changed while it was read" in done.stderr
    assert nothing_left(tmp_path / "w")


@pytest.mark.parametrize("name", ["../escape", "/etc/passwd", "a/../../b", "a\nb", "x/./y", "\x1b[2Jz"])
def test_hostile_names_are_refused_before_anything_is_written(tracking: Tracking, tmp_path: Path, proxy: Make, name: str) -> None:
    listing = json.dumps({"files": [{"path": name, "is_dir": False, "file_size": 1}]}).encode()
    broken = proxy(tracking.box.origin, lambda path, count: Fault(body=listing) if "mlflow-artifacts/artifacts?path=" in path else None)
    done = run(tmp_path / "w", tracking.login, *arguments(f"{broken.url}/mlflow", "heavy", "--through", "server"))
    assert done.returncode == 1
    assert "unsafe name" in done.stderr
    assert "\x1b" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "w"]
    assert nothing_left(tmp_path / "w")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_leaves_nothing(tracking: Tracking, tmp_path: Path, proxy: Make, number: signal.Signals, status: int) -> None:
    slow = proxy(tracking.box.origin, _weights(Fault(hang=True), 1))
    folder = tmp_path / "w"
    folder.mkdir()
    argv = arguments(f"{slow.url}/mlflow", "heavy", "--through", "server")
    with subprocess.Popen(argv, cwd=folder, env=surroundings(folder, tracking.login), stderr=subprocess.PIPE, text=True) as process:
        until(slow.hanging.is_set, what="the hanging download")
        until(lambda: list(folder.glob(".MLWFExportModel_*/artifacts/weights.bin")), what="the hidden folder")
        process.send_signal(number)
        _out, words = process.communicate(timeout=20)
    assert process.returncode == status
    assert "nothing was kept" in words
    assert "Traceback" not in words
    assert nothing_left(folder)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", place], capture_output=True, check=False)
    if made.returncode != 0:
        pytest.skip("a file system cannot be mounted here (needs root)")
    yield place
    subprocess.run(["umount", place], check=True)


def test_too_little_space_is_found_first(tracking: Tracking, small_disk: Path, tmp_path: Path) -> None:
    done = run(tmp_path / "w", tracking.environ, *arguments(tracking.url, "heavy", "--output-dir", str(small_disk)))
    assert done.returncode == 1
    assert "There is not enough space" in done.stderr
    assert nothing_left(small_disk)


def test_a_disk_that_fills_up_meanwhile(tracking: Tracking, small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Workspace, "check_space", lambda self, needed: None)
    (small_disk / "others").write_bytes(bytes(16 << 20))
    with pytest.raises(MlwfError) as caught, TerminalReporter(stderr()) as report:
        export(Wanted(tracking.url, "heavy", "1", None, small_disk, "server"), {**tracking.environ, "HOME": "/nowhere"}, report)
    assert caught.value.why == "No space left on device"
    assert "--output-dir" in caught.value.cure
    assert nothing_left(small_disk)
