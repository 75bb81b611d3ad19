"""The cache where a file server stands between the nodes: what NFS was seen to do (docs/explanation/image-inputs.md), by a stand-in."""

import errno
import os
from pathlib import Path

import pytest
from mlwf.file_server import link, rename
from mlwf.image import cache as module
from mlwf.image import create
from mlwf.image.cache import Cache
from mlwf.image.environment import compiled
from mlwf.transfer import lease_file

from tests.image.conftest import file_of


def test_what_another_node_changed_a_moment_ago_is_seen(cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node on NFS says for a minute what a file was, until somebody opens it."""
    kept = cache.put("images", "k", file_of(tmp_path))
    usual, before = Path.stat, kept.stat()
    kept.write_text("CONTENT")
    monkeypatch.setattr(Path, "stat", lambda path, **how: before if path == kept else usual(path, **how))
    assert cache.get("images", "k") is None


@pytest.mark.parametrize("by", ["another node", "the site"])
def test_what_was_put_a_moment_ago_is_found(cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    """A node on NFS says for a minute that it is missing, until somebody opens the folder: the next job made it once more."""
    kept = cache.put("images", "k", file_of(tmp_path))
    if by == "the site":
        cache = Cache(tmp_path / "mine", (cache.root,))
    opened: list[object] = []
    usual, looks = os.open, module._is_whole

    def open_(path: Path, *how: int, **where: int) -> int:
        opened.append(path)
        return usual(path, *how, **where)

    monkeypatch.setattr(os, "open", open_)
    monkeypatch.setattr(module, "_is_whole", lambda entry: entry.parent in opened and looks(entry))
    assert cache.get("images", "k") == kept


def test_what_a_program_has_open_on_nfs_is_removed_by_a_later_job(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """There it stays under another name, and so does its folder; without a lease beside it, it stayed for ever."""
    usual, opened = os.unlink, True

    def unlink(path: str, *, dir_fd: int | None = None) -> None:
        if opened and Path(path).name.startswith(".nfs"):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        if not opened or dir_fd is None:
            usual(path, dir_fd=dir_fd)
        else:
            os.rename(path, f".nfs{path}", src_dir_fd=dir_fd, dst_dir_fd=dir_fd)

    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", unlink)
        with cache.work() as work:
            file_of(work)
        cache.sweep()
        (left,) = work.iterdir()
        assert left.name.startswith(".nfs")
        opened = False
        cache.sweep()
    assert list((cache.root / "work").iterdir()) == list((cache.root / "leases").iterdir()) == []


def test_a_lease_that_was_taken_and_not_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file server that starts anew is asked again, and has forgotten that it answered: whoever waits then, waits for itself."""
    usual = os.link

    def link(source: Path, target: Path) -> None:
        usual(source, target)
        usual(source, target)

    monkeypatch.setattr(os, "link", link)
    with lease_file.hold(tmp_path / "lease", waits=lambda: pytest.fail("for itself")):
        assert [path.name for path in tmp_path.iterdir()] == ["lease"]
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file server that starts anew does what it is asked, is asked again, and refuses it."""
    renames, links = Path.rename, os.link

    def rename(path: Path, target: Path) -> Path:
        renames(path, target)
        return renames(path, target)

    def link(source: Path, target: Path) -> None:
        links(source, target)
        links(source, target)

    monkeypatch.setattr(Path, "rename", rename)
    monkeypatch.setattr(os, "link", link)


@pytest.mark.usefixtures("no_answer")
def test_what_was_put_and_not_told_so(cache: Cache, tmp_path: Path) -> None:
    for content in ("one", "another"):
        kept = cache.put("images", "k", file_of(tmp_path, content))
        assert kept.read_text() == content
        assert cache.get("images", "k") == kept
    with cache.work() as work:
        (work / "made").mkdir()
        assert cache.put_folder("pythons", "p", work / "made").is_dir()
    cache.remove(kept.parent)
    assert cache.get("images", "k") is None


@pytest.mark.usefixtures("no_answer")
def test_what_was_handed_out_and_not_told_so(cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was taken for a file system without hard links, and the copy was of the file onto itself."""
    monkeypatch.setattr(create, "_clone", lambda *_files: False)
    kept = cache.put("images", "k", file_of(tmp_path))
    create.hand_out(kept, tmp_path / "mine")
    assert (tmp_path / "mine").samefile(kept)
    compiled._beside(str(kept), str(tmp_path / "new" / "a.pyc"))
    assert (tmp_path / "new" / "a.pyc").samefile(kept)


@pytest.mark.usefixtures("no_answer")
def test_a_lease_that_was_taken_away_and_not_told_so(tmp_path: Path) -> None:
    """The dead one's stayed under another name for ever."""
    (tmp_path / "lease").write_text(lease_file.OVER)
    with lease_file.hold(tmp_path / "lease"):
        assert [path.name for path in tmp_path.iterdir()] == ["lease"]


def test_what_is_refused_for_good(tmp_path: Path) -> None:
    here, there = file_of(tmp_path), tmp_path / "there"
    there.mkdir()
    for refused in (lambda: rename(here, there), lambda: rename(tmp_path / "none", here), lambda: link(here, there)):
        with pytest.raises(OSError):
            refused()
    assert here.exists()
