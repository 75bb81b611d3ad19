"""The user's cache of what an image is made from: bases, images, wheels. Content is named by what it is made of."""

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import socket
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from mlwf.errors import MlwfError
from mlwf.i18n import _

LEASE_SECONDS = 60.0


class Cache:
    """A folder (0700) of the user's own, used by many jobs at once: an entry appears complete, by rename, or not at all."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def open(cls, environ: Mapping[str, str]) -> "Cache":
        """The cache that `MLWF_CACHE` names, else `XDG_CACHE_HOME`/mlwf, else ~/.cache/mlwf. Raises MlwfError."""
        named = environ.get("MLWF_CACHE")
        above = environ.get("XDG_CACHE_HOME") or str(Path(environ.get("HOME", "/"), ".cache"))
        root = Path(named) if named else Path(above, "mlwf")
        try:
            root.mkdir(0o700, parents=True, exist_ok=True)
            state = root.stat()
        except OSError as error:
            raise MlwfError(
                _("The cache {folder} cannot be used").format(folder=root),
                error.strerror or str(error),
                _("Name a folder of yours in MLWF_CACHE."),
            ) from error
        if state.st_uid != os.geteuid() or stat.S_IMODE(state.st_mode) & 0o022:
            raise MlwfError(
                _("The cache {folder} cannot be used").format(folder=root),
                _("others may write there, or it is not yours"),
                _("Name a folder of yours in MLWF_CACHE."),
            )
        return cls(root)

    @staticmethod
    def key(*parts: object) -> str:
        """One name for all of these, which are what the content depends on."""
        text = json.dumps([str(part) for part in parts], ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def get(self, kind: str, key: str) -> Path | None:
        """The entry, if it is there and as it was put; one that was changed since is thrown away."""
        file, mark = self._paths(kind, key)
        try:
            kept = json.loads(mark.read_bytes())
            if kept["stamp"] == _stamp(file) or kept["sha256"] == _sha256(file):
                return file
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            pass
        for each in (mark, file):
            each.unlink(missing_ok=True)
        return None

    def put(self, kind: str, key: str, made: Path, *, sha256: str = "") -> Path:
        """Takes the finished file over (moved where that is possible). Raises OSError."""
        file, mark = self._paths(kind, key)
        file.parent.mkdir(0o700, parents=True, exist_ok=True)
        digest = sha256 or _sha256(made)
        partial = file.with_name(f".{secrets.token_hex(8)}.partial")
        try:
            try:
                made.rename(partial)
            except OSError:
                shutil.copyfile(made, partial)
                made.unlink()
            note = partial.with_suffix(".note")
            note.write_text(json.dumps({"sha256": digest, "stamp": _stamp(partial)}))
            partial.rename(file)
            note.rename(mark)
        finally:
            for each in (partial, partial.with_suffix(".note")):
                each.unlink(missing_ok=True)
        return file

    @contextlib.contextmanager
    def work(self) -> Iterator[Path]:
        """A folder on the cache's own file system, gone afterwards."""
        folder = self.root / "work" / secrets.token_hex(8)
        folder.mkdir(0o700, parents=True)
        try:
            yield folder
        finally:
            remove_tree(folder)

    @contextlib.contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """One job at a time makes an entry. A lease file tells who; one whose time is over (a lost node) is taken over."""
        file = self.root / "leases" / key
        file.parent.mkdir(0o700, parents=True, exist_ok=True)
        while not _take(file):
            time.sleep(0.1)
        try:
            yield
        finally:
            file.unlink(missing_ok=True)

    def _paths(self, kind: str, key: str) -> tuple[Path, Path]:
        folder = self.root / kind
        return folder / key, folder / f"{key}.json"


def remove_tree(folder: Path) -> None:
    """Removes a tree, read-only folders in it too."""

    def again(_function: object, path: str, _error: object) -> None:
        with contextlib.suppress(OSError):
            Path(path).parent.chmod(0o700)
            Path(path).chmod(0o700) if not Path(path).is_symlink() else None
            shutil.rmtree(path, ignore_errors=True) if Path(path).is_dir() else Path(path).unlink()

    shutil.rmtree(folder, onerror=again)


def _take(file: Path) -> bool:
    try:
        descriptor = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        if _is_over(file):
            file.unlink(missing_ok=True)
        return False
    with os.fdopen(descriptor, "w") as lease:
        lease.write(json.dumps({"host": socket.gethostname(), "pid": os.getpid()}))
    return True


def _is_over(file: Path) -> bool:
    try:
        holder = json.loads(file.read_bytes() or b"{}")
        age = time.time() - file.stat().st_mtime
    except (OSError, ValueError):
        return False
    if holder.get("host") == socket.gethostname():
        return not Path("/proc", str(holder.get("pid"))).exists()
    return age > LEASE_SECONDS * 60


def _stamp(file: Path) -> list[int]:
    state = file.stat()
    return [state.st_size, state.st_mtime_ns, state.st_ino]


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
