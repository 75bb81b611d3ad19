"""Work aside: both end well, either fails, the user interrupts; and what steps tell when one comes within another."""

import io
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from mlwf.errors import MlwfError
from mlwf.image.aside import Aside
from mlwf.image.process import ProgramError, Runner
from mlwf.image.steps import Steps

from tests.support.box import alive, until


class Build:
    """A build and what it does aside; `given_back` is set when what the work aside holds was given back."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = io.BytesIO()
        self.runner = Runner({"PATH": "/usr/bin:/bin"}, self.log)
        self.given_back = threading.Event()

    def aside(self) -> Aside:
        aside = Aside(self.runner, "base")
        aside.held.callback(self.given_back.set)
        return aside

    def hangs(self, runner: Runner, name: str) -> str:
        """A program that runs until it is ended."""
        file = self.folder / name
        return runner.run(
            ["/bin/sh", "-c", 'echo $$ > "$1.new"; mv "$1.new" "$1"; exec tail -f /dev/null', "sh", file], f"{name} was ended"
        )

    def pid(self, name: str) -> int:
        """The program's, once it runs."""
        until((self.folder / name).exists, what=f"a running {name}")
        return int((self.folder / name).read_text())


@pytest.fixture
def build(tmp_path: Path) -> Build:
    return Build(tmp_path)


def fails(after: Callable[[], object]) -> Callable[[], None]:
    def work() -> None:
        after()
        raise MlwfError("aside failed")

    return work


def test_both_end_well(build: Build) -> None:
    goes_on = threading.Event()
    with build.aside() as aside:
        future = aside.start(lambda: (goes_on.wait(30), aside.runner.run(["printf", "two\nlines"], "x"))[1])
        assert build.runner.run(["echo", "main"], "x") == "main\n", "the build goes on"
        assert not build.given_back.is_set()
        goes_on.set()
    assert future.result() == "two\nlines"
    assert build.given_back.is_set()
    lines = build.log.getvalue().decode().splitlines()
    assert lines == ["$ echo main", "main", "base: $ printf two", "base: lines", "base: two", "base: lines"], "who says what can be told"


def test_what_was_held_is_given_back_where_nothing_was_started(build: Build) -> None:
    with pytest.raises(MlwfError, match="before it"), build.aside():
        raise MlwfError("before it")
    assert build.given_back.is_set()


def test_a_failure_aside_ends_the_build_and_is_the_one_that_is_told(build: Build) -> None:
    def built() -> None:
        with build.aside() as aside:
            aside.start(fails(lambda: build.pid("main")))
            build.hangs(build.runner, "main")

    with pytest.raises(MlwfError, match="aside failed"):
        built()
    assert not alive([build.pid("main")])
    assert build.given_back.is_set()
    with pytest.raises(ProgramError):
        build.runner.run(["true"], "nothing more is started")


def test_a_failure_aside_is_told_where_the_build_waits_for_its_result_and_at_the_end(build: Build) -> None:
    with pytest.raises(MlwfError, match="aside failed"), build.aside() as aside:
        aside.start(fails(lambda: None)).result()
    with pytest.raises(MlwfError, match="aside failed"), build.aside() as aside:
        aside.start(fails(lambda: None))


@pytest.mark.parametrize("error", [MlwfError("the build failed"), KeyboardInterrupt("the build failed")])
def test_a_failure_of_the_build_and_an_interrupt_end_what_is_aside(build: Build, error: BaseException) -> None:
    started = []

    def built() -> None:
        with build.aside() as aside:
            started.append(aside.start(lambda: build.hangs(aside.runner, "aside")))
            build.pid("aside")
            raise error

    with pytest.raises(type(error), match="the build failed"):
        built()
    assert not alive([build.pid("aside")])
    assert isinstance(started[0].exception(), ProgramError)
    assert build.given_back.is_set()


def test_an_interrupt_while_only_the_work_aside_is_waited_for(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_futures: object) -> None:
        build.pid("aside")
        raise KeyboardInterrupt

    monkeypatch.setattr("mlwf.image.aside.wait", interrupted)
    with pytest.raises(KeyboardInterrupt), build.aside() as aside:
        aside.start(lambda: build.hangs(aside.runner, "aside"))
    assert not alive([build.pid("aside")])
    assert build.given_back.is_set()


class Told:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def begins(self, name: str, size: Callable[[], int] | None, total: int | None) -> None:
        self.lines.append(f"{name} {size() if size else None} {total}")

    def expects(self, name: str, total: int) -> None:
        self.lines.append(f"{name} {total}")

    def ends(self, name: str, seconds: float) -> None:
        self.lines.append(f"{name} ended")

    def waits(self) -> None:
        raise AssertionError

    def warns(self, text: str) -> None:
        raise AssertionError


def test_a_step_within_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 10.0, 12.0, 15.0])
    monkeypatch.setattr("mlwf.image.steps.time.monotonic", lambda: next(clock))
    (tmp_path / "file").write_bytes(b"1234")
    told = Told()
    steps = Steps(told)
    with steps.step("environment"), steps.step("base-pack", grows=tmp_path / "file"):
        pass
    assert told.lines == ["environment None None", "base-pack 4 None", "base-pack ended", "environment None None", "environment ended"]
    assert steps.seconds == {"base-pack": 2.0, "environment": 13.0}
