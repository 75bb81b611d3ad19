"""What is remembered in the cache so that it need not be asked or read again: what an address meant, and a file's digest."""

import contextlib
import os
import platform
import secrets
from pathlib import Path

from mlwf.file_server import look_anew, rename, state_of
from mlwf.image.base.docker_reference import DIGEST
from mlwf.image.base.source import BaseSource, file_digest
from mlwf.image.kit import Kit


def of_address(kit: Kit, source: BaseSource, *more: str) -> Path:
    """Where it is remembered what the address meant, to a machine of this one's kind; `more`: what else of it."""
    return kit.cache.root / "addresses" / kit.cache.key(source.text, platform.machine(), *more)


def remember(path: Path, text: str) -> None:
    """Write a small file, a digest and what belongs to it, so that other jobs of the same user see all of it or nothing."""
    path.parent.mkdir(0o700, exist_ok=True)
    fresh = path.with_suffix(f".{secrets.token_hex(8)}")
    fresh.write_text(text)
    rename(fresh, path)


def recall(path: Path) -> tuple[str, str]:
    """The digest that was remembered there, and what belongs to it. Raises FileNotFoundError."""
    look_anew(path.parent)
    digest, _space, more = path.read_text(errors="replace").partition(" ")
    if not DIGEST.fullmatch(digest):  # a node that was lost may leave an empty file, or one of zeros
        raise FileNotFoundError(path)
    with contextlib.suppress(OSError):
        os.utime(path)  # when it was last used, for prune
    return digest, more


def known_digest(kit: Kit, file: Path) -> str:
    """A file's digest, remembered as long as the file stays as it is."""
    state = state_of(file)
    known = kit.cache.root / "digests" / kit.cache.key(file, state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino)
    try:
        return recall(known)[0]
    except FileNotFoundError:
        digest = file_digest(file)
    remember(known, digest)
    return digest
