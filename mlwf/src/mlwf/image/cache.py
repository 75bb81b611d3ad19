"""The user's cache of what an image is made from: bases, images, locks, wheels. An entry is named by all that it is made of.

An entry is a folder KIND/KEY with `content` and `note.json` (its SHA-256). It appears complete, by one rename, or not at all.
"""

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlwf.ending import Terminated
from mlwf.errors import MlwfError
from mlwf.file_server import look_anew, rename, state_of
from mlwf.i18n import _
from mlwf.transfer.lease_file import OVER_SECONDS, hold, is_over, server_time
from mlwf.transfer.workspace import SILENT_SECONDS

CONTENT, NOTE = "content", "note.json"
LEASES, WORK = "leases", "work"
REMOVED = ".removed-"
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True)
class Cache:
    """`root`: the user's own folder (0700), used by many jobs at once; `layers`: folders of the site that are only read."""

    root: Path
    layers: tuple[Path, ...] = ()

    @classmethod
    def open(cls, environ: Mapping[str, str]) -> "Cache":
        """`MLWF_CACHE`, else `XDG_CACHE_HOME`/mlwf, else ~/.cache/mlwf; behind it `MLWF_SHARED_CACHE`. Raises MlwfError."""
        named = environ.get("MLWF_CACHE")
        above = environ.get("XDG_CACHE_HOME") or str(Path(environ.get("HOME", "/"), ".cache"))
        root = Path(named) if named else Path(above, "mlwf")
        try:
            root.mkdir(0o700, parents=True, exist_ok=True)
            state = root.stat()
        except OSError as error:
            raise _unusable(root, error.strerror or str(error)) from error
        if state.st_uid != os.geteuid() or state.st_mode & OTHERS_WRITE:
            raise _unusable(root, _("others may write there, or it is not yours"))
        cache = cls(root, tuple(Path(each) for each in environ.get("MLWF_SHARED_CACHE", "").split(":") if each))
        cache.sweep()
        return cache

    @staticmethod
    def key(*parts: object) -> str:
        """One name for all of these, which are what the content depends on."""
        text = json.dumps([str(part) for part in parts], ensure_ascii=False)
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()

    def get(self, kind: str, key: str) -> Path | None:
        """The entry's content, if it is there and as it was put. One of the user's that was changed since is thrown away."""
        entry = self.root / kind / key
        look_anew(entry.parent)
        if _is_whole(entry):
            with contextlib.suppress(OSError):
                os.utime(entry)  # when it was last used, for prune
            return entry / CONTENT
        if entry.exists():
            self._discard(entry)
            if _is_whole(entry):
                return entry / CONTENT
        for layer in self.layers:
            shared = layer / kind / key
            look_anew(shared.parent)
            if _is_safe(layer, kind, key) and _is_whole(shared):
                return shared / CONTENT
        return None

    def put(self, kind: str, key: str, made: Path) -> Path:
        """Takes the finished file over (moved where that is possible), in the place of another content that was there. Raises OSError."""
        entry = self.root / kind / key
        entry.parent.mkdir(0o700, parents=True, exist_ok=True)
        with self.work() as work:
            fresh = work / "entry"
            fresh.mkdir(0o700)
            _move(made, fresh / CONTENT)
            note = {"sha256": _sha256(fresh / CONTENT), "stamp": _stamp(fresh / CONTENT)}
            (fresh / NOTE).write_text(json.dumps(note))
            # Whoever has got the same content already goes on using it by its path.
            while not _holds(entry, str(note["sha256"])) and not _rename_into(fresh, entry):
                self.remove(entry)
        return entry / CONTENT

    def put_folder(self, kind: str, key: str, made: Path) -> Path:
        """Takes the finished folder over, from `work`. One that is there already stays: jobs use its files by path. Raises OSError."""
        entry = self.root / kind / key
        entry.parent.mkdir(0o700, parents=True, exist_ok=True)
        os.utime(made)  # a copy has the time of what it was copied from, and would be pruned while it is in use
        _rename_into(made, entry)
        return entry

    def remove(self, entry: Path) -> None:
        """Takes an entry away: out of sight by one rename, and then file by file. On a full disk, too, which is why one is taken away."""
        with contextlib.suppress(FileNotFoundError):
            try:
                with self.work() as work:
                    rename(entry, work / "removed")
            except OSError as error:
                if error.errno not in FULL:
                    raise
                # A lease takes room itself. What a job that is killed now leaves, the next prune finds by its name.
                aside = entry.with_name(f"{REMOVED}{secrets.token_hex(8)}")
                rename(entry, aside)
                remove_tree(aside)

    def _discard(self, entry: Path) -> None:
        """Takes a broken entry away; what another job put in its place meanwhile is put back."""
        with self.work() as work, contextlib.suppress(FileNotFoundError):
            aside = work / "removed"
            rename(entry, aside)
            if _is_whole(aside):
                _rename_into(aside, entry)

    @contextlib.contextmanager
    def work(self) -> Iterator[Path]:
        """A folder on the cache's own file system, gone afterwards; the next `sweep` removes what a killed job left."""
        name = secrets.token_hex(8)
        folder = self.root / WORK / name
        # On NFS a file that a program has open stays, under another name, and its folder with it.
        with hold(self._leases() / f"{WORK}-{name}", keeps=folder.exists):
            folder.mkdir(0o700, parents=True)
            try:
                yield folder
            finally:
                remove_tree(folder)

    @contextlib.contextmanager
    def lock(self, key: str, *, waits: Callable[[], object] = lambda: None) -> Iterator[None]:
        """One job at a time makes an entry, as far as a lease can assure that; `waits` is told when another one is at it."""
        with hold(self._leases() / key, waits=waits):
            yield

    def _leases(self) -> Path:
        folder = self.root / LEASES
        folder.mkdir(0o700, parents=True, exist_ok=True)
        return folder

    def sweep(self) -> None:
        """Removes the working folders of jobs that were killed, half-made entries in them, when their lease is over."""
        for lease in _entries(self.root / LEASES):
            of_work = lease.name.startswith(f"{WORK}-")
            if is_over(lease, silent=SILENT_SECONDS if of_work else OVER_SECONDS):
                folder = self.root / WORK / lease.name.removeprefix(f"{WORK}-")
                if of_work:
                    remove_tree(folder)
                if not (of_work and folder.exists()):  # else the next job tries again
                    lease.unlink(missing_ok=True)
        # A program that outlived its job may have made its folder again. Who lives made the lease first, which NFS shows late.
        for folder in _entries(self.root / WORK):
            if not (self.root / LEASES / f"{WORK}-{folder.name}").exists() and _is_old(folder):
                remove_tree(folder)


def remove_tree(folder: Path) -> None:
    """Removes a tree, read-only folders in it too. Ctrl-C or SIGTERM ends the program after that; what was gone already is no error."""

    def again(_function: object, path: str, _error: object) -> None:
        with contextlib.suppress(OSError):
            Path(path).parent.chmod(0o700)
            if not Path(path).is_symlink():
                Path(path).chmod(0o700)
            if Path(path).is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                Path(path).unlink()

    interrupted: KeyboardInterrupt | Terminated | None = None
    for _attempt in range(3):
        try:
            shutil.rmtree(folder, onerror=again)
        except (KeyboardInterrupt, Terminated) as error:
            interrupted = error
        else:
            break
    if interrupted:
        raise interrupted


def _entries(folder: Path) -> Sequence[Path]:
    try:
        return [each for each in folder.iterdir() if not each.name.startswith(".")]
    except FileNotFoundError:
        return []


def _is_old(folder: Path) -> bool:
    try:
        return abs(server_time(folder.parent) - folder.stat().st_mtime) > SILENT_SECONDS  # ahead: of a clock that was set back
    except OSError:
        return False


def _is_whole(entry: Path) -> bool:
    try:
        kept = json.loads((entry / NOTE).read_bytes())
        # The stamp spares reading gigabytes: another size, time or inode means that somebody touched it, and the digest decides.
        return bool(kept["stamp"] == _stamp(entry / CONTENT) or kept["sha256"] == _sha256(entry / CONTENT))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _holds(entry: Path, sha256: str) -> bool:
    try:
        return bool(json.loads((entry / NOTE).read_bytes())["sha256"] == sha256) and _is_whole(entry)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _is_safe(layer: Path, kind: str, key: str) -> bool:
    """Whether nobody but the owner of the layer can have put or changed this there."""
    try:
        states = [path.lstat() for path in (layer, layer / kind, *(layer / kind / key / part for part in ("", CONTENT, NOTE)))]
    except OSError:
        return False
    owner = states[0].st_uid
    # A link would lead where others may write.
    return all(state.st_uid == owner and not state.st_mode & OTHERS_WRITE and not stat.S_ISLNK(state.st_mode) for state in states)


def _move(made: Path, into: Path) -> None:
    try:
        rename(made, into)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.copyfile(made, into)
        into.chmod(stat.S_IMODE(made.stat().st_mode))
        made.unlink()


def _rename_into(fresh: Path, entry: Path) -> bool:
    try:
        rename(fresh, entry)
    except OSError as error:
        if error.errno in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
            return False
        raise
    return True


def _unusable(root: Path, why: str) -> MlwfError:
    return MlwfError(_("The cache {folder} cannot be used").format(folder=root), why, _("Set MLWF_CACHE to a folder of yours."))


def _stamp(file: Path) -> list[int]:
    state = state_of(file)
    return [state.st_size, state.st_mtime_ns, state.st_ino]


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
