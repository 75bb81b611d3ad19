"""How much the cache holds, and making it smaller: what was not used for longest goes first."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mlwf.file_server import state_of
from mlwf.image.cache import CONTENT, LEASES, NOTE, REMOVED, WORK, Cache, remove_tree

# Entries are one folder each; of wheels and Pythons a job uses files by path, so a whole version goes at once.
KINDS = ("images", "bases", "packages", "pythons", "wheels", "compiled", "locks", "proofs", "digests", "addresses")
# What only leads to an entry: a few bytes, without which a base of gigabytes is not found.
LEADS = frozenset({"digests", "addresses"})
# What is asked of the layers that a site shares.
SHARED = ("bases", "images", "locks")
IN_USE_SECONDS = 3600.0


@dataclass(frozen=True)
class Entry:
    """`size`: bytes on disk; `files`: with the folders, as quotas count them; `used`: seconds since 1970."""

    path: Path
    kind: str
    size: int
    files: int
    used: float


@dataclass(frozen=True)
class Pruned:
    """What went, what is left, and how much of that could not go because it was used within the last hour (bytes)."""

    removed: int
    freed: int
    left: int
    in_use: int


def entries(cache: Cache) -> list[Entry]:
    """Everything in the user's cache, in the order in which it may go. A file that several entries share counts once."""
    seen: set[tuple[int, int]] = set()
    found = [
        Entry(path, kind, *_size(path, seen), _used(path))
        for kind in (*KINDS, WORK)
        for path in _children(cache.root / kind)
        if not path.name.startswith(".")
    ]
    return sorted(found, key=lambda entry: (entry.kind in LEADS, entry.used))


def prune(cache: Cache, max_bytes: int, *, now: float | None = None) -> Pruned:
    """Removes what was not used for longest until `max_bytes` are left. What was used within the hour stays: a job may be at it."""
    cache.sweep()
    for kind in KINDS:
        for rest in cache.root.glob(f"{kind}/{REMOVED}*"):
            remove_tree(rest)
    everything = entries(cache)
    moment = _now(cache.root) if now is None else now
    left = sum(entry.size for entry in everything)
    removed = freed = in_use = 0
    for entry in everything:
        if entry.kind == WORK:
            continue  # of a job that lives: sweep has taken the others
        if left <= max_bytes:
            break
        # Asked again: to count a large cache takes minutes, in which a job may have begun to use it.
        # A time that lies ahead is of a clock that was set back since, and hides no use that came after it.
        if any(abs(moment - each) < IN_USE_SECONDS for each in (entry.used, *_times(entry.path))):
            in_use += entry.size
            continue
        cache.remove(entry.path)
        removed, freed, left = removed + 1, freed + entry.size, left - entry.size
    return Pruned(removed, freed, left, in_use)


def _now(folder: Path) -> float:
    """The file server's clock. It is asked without a new file, for which there may be no room."""
    os.utime(folder)
    return state_of(folder).st_mtime


def leases(cache: Cache) -> int:
    """How many jobs are making something in it now."""
    return sum(1 for each in _children(cache.root / LEASES) if each.name.startswith(f"{WORK}-"))


def fault_of_layer(layer: Path) -> str:
    """What of a shared layer this user may not read, and why; empty where all can be read, or nothing is there yet."""
    try:
        layer.stat()
        for entry in (entry for kind in SHARED for entry in _children(layer / kind)):
            for name in (CONTENT, NOTE):
                (entry / name).open("rb").close()
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    return ""


def _children(folder: Path) -> Iterator[Path]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        yield from folder.iterdir()


def _used(path: Path) -> float:
    """When it was last used."""
    return max(_times(path), default=0.0)


def _times(path: Path) -> list[float]:
    """When it was used, as far as one sees: `get` touches an entry; of a folder that grows, its newest direct content counts too."""
    times = []
    for each in (path, *_children(path)):
        with contextlib.suppress(FileNotFoundError):
            times.append(each.lstat().st_mtime)
    return times


def _size(path: Path, seen: set[tuple[int, int]]) -> tuple[int, int]:
    """Bytes and files that are not in `seen`, where they are from then on."""
    total, before = 0, len(seen)
    for file in _files(path):
        with contextlib.suppress(FileNotFoundError):
            state = file.lstat()
            if (state.st_dev, state.st_ino) not in seen:
                seen.add((state.st_dev, state.st_ino))
                total += state.st_blocks * 512
    return total, len(seen) - before


def _files(path: Path) -> Iterator[Path]:
    yield path
    if not path.is_dir() or path.is_symlink():
        return
    for where, folders, names in os.walk(path):
        for name in (*folders, *names):
            yield Path(where, name)
