"""The cache where a file server stands between the nodes: what NFS was seen to do (docs/explanation/image-inputs.md), by a stand-in."""

import errno
import os
from pathlib import Path

import pytest
from mlwf.image import cache as module
from mlwf.image.cache import Cache
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
