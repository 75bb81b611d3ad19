"""`bin/demo` with parts that are stood in for: what an interrupted start, a full disk and Ctrl-C leave behind."""

import errno
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from demo import cli
from demo.home import Home, State
from demo.parts import Part

ORDER = ("object store", "service", "console")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The demo's folder of this test, as `DEMO_HOME` names it."""
    monkeypatch.setenv("DEMO_HOME", str(tmp_path / "demo"))
    return tmp_path / "demo"


@pytest.fixture
def parts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Part]]:
    """Programs that only stay, in place of the demo's; each answers once its file is there, and all but the store's are."""
    made = [_part(folder, name) for name in ORDER]
    for part in made[1:]:
        _answers(folder, part.name)
    monkeypatch.setattr(cli, "all_parts", lambda _home, _settings: made)
    monkeypatch.setattr(cli, "prepare", lambda _home, _settings: None)
    yield made
    for part in made:
        part.stop()


def _part(folder: Path, name: str) -> Part:
    def ready() -> str | None:
        return None if (folder.parent / name).exists() else "no file yet"

    log, process_file = folder / "log" / name, Home(folder).process_file(name)
    return Part(name, "nowhere", ["sleep", "300"], {"PATH": os.defpath}, folder, log, process_file, ready)


def _answers(folder: Path, name: str) -> None:
    (folder.parent / name).touch()


def _run(monkeypatch: pytest.MonkeyPatch, *words: str) -> object:
    """The exit status of `bin/demo WORDS…`."""
    monkeypatch.setattr("sys.argv", ["bin/demo", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return end.value.code


def test_the_bucket_is_made_by_the_second_up_where_the_first_ended_before_the_store_answered(
    parts: list[Part], folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made_in: list[Home] = []
    monkeypatch.setattr(cli, "make_bucket", made_in.append)
    monkeypatch.setattr("demo.parts.READY_SECONDS", 0.0)
    assert _run(monkeypatch, "up") == 1
    assert "the object store was not ready after 0 s" in capsys.readouterr().err
    assert made_in == []
    _answers(folder, "object store")
    assert _run(monkeypatch, "up") == 0
    assert "runs already" in capsys.readouterr().out
    assert made_in == [Home(folder)]


def _full(_home: Home, _state: State) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_down_on_a_full_disk_ends_the_parts_and_then_says_it(
    parts: list[Part], folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = Home(folder)
    with home.locked():
        home.save(replace(home.state(), wanted=True))
        assert all(part.ensure_started() for part in parts)
    monkeypatch.setattr(Home, "save", _full)
    assert _run(monkeypatch, "down") == 1
    assert [part.name for part in parts if part.running()] == []
    assert "No space left on device" in capsys.readouterr().err


def test_down_leaves_a_demo_that_is_not_wanted_and_has_no_short_path(
    parts: list[Part], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ("long-" * 20) / "demo"
    monkeypatch.setenv("DEMO_HOME", str(folder))
    home = Home(folder)
    with home.locked():
        home.save(replace(home.state(), wanted=True))
        alias = home.service.parent
    assert alias.is_symlink()
    assert _run(monkeypatch, "down") == 0
    assert not alias.is_symlink()
    assert home.state().wanted is False
    assert home.state().alias is None


def _interrupted(*_given: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("options", [[], ["--foreground"]])
@pytest.mark.parametrize("during", ["choose_runtime", "prepare"])
def test_ctrl_c_is_one_line_and_130(
    parts: list[Part], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], during: str, options: list[str]
) -> None:
    monkeypatch.setattr(cli, during, _interrupted)
    assert _run(monkeypatch, "up", *options) == 130
    said = capsys.readouterr().err.strip()
    assert len(said.splitlines()) == 1
    assert "bin/demo down" in said
