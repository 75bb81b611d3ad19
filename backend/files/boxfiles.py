"""The directory of each box, as docs/reference/box.md has it: ``config/`` is ours, the rest belongs to the box."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from backend.atomic import discard_unfinished, full_disk_is_ours, is_unfinished, make_private, replace_file
from backend.domain import Box, StorageKey
from backend.files.snapshots import PlainKeeper
from backend.ports import Keeper

_ID: Final = re.compile(r"[a-z][a-z0-9]{11}")
_PRINTABLE: Final = re.compile(r"[\x20-\x7e]+")
_REMOVED: Final = ".removed-"
_KEYS, _CREDENTIALS, _SETTINGS, _USERS = "keys.json", "s3/credentials", "settings.json", "users.json"
_TICKET_KEYS, _TOKENS, _REVOKED = "ticket_keys.json", "tokens.json", "revoked.json"
_ALL: Final = (_KEYS, _CREDENTIALS, _SETTINGS, _TICKET_KEYS, _TOKENS, _REVOKED, _USERS)


class BoxDirectories:
    """Boxes below one folder (``STATE/servers``), each named by its server's id. Implements the port ``BoxFiles``."""

    def __init__(self, root: Path, keeper: Keeper | None = None) -> None:
        self._root = root
        self._keeper = keeper or PlainKeeper()
        self._locks: dict[str, threading.Lock] = {}

    def directory(self, server_id: str) -> Path:
        """Where it is, whether it exists or not. ``ValueError`` for what is no id: nothing typed by a user ever names a path."""
        if not _ID.fullmatch(server_id):
            raise ValueError(f"not a server's id: {server_id!r}")
        return self._root / server_id

    def is_installed(self, box: Box) -> bool:
        """Whether the box has what ``install`` would give it, and nothing that a write that was cut short left. What the files say is
        compared: to write it all again, as ``install`` does, takes most of a look's time.
        """
        directory = self.directory(box.server_id)
        if not self._keeper.is_prepared(directory, box.uids):
            return False
        wanted = ((directory / "config" / name, document) for name, document in _documents(box))
        return all(_says(path, document) and not is_unfinished(path) for path, document in wanted)

    def install(self, box: Box) -> bool:
        """Make ``config/`` say what ``box`` says; only what differs is written, so that the box does not restart for nothing.

        True if something changed. Error: ``disk_full``; what was in force stays in force.
        """
        config = self.directory(box.server_id) / "config"
        changed = False
        with full_disk_is_ours("writing the tracking server's settings"):
            self._keeper.prepare(config.parent, box.uids)
            make_private(config / "s3")
            with self._writing(box.server_id):
                for name, document in _documents(box):
                    changed = self._write(config / name, _bytes(document)) or changed
        return changed

    def retract(self, box: Box) -> bool:
        """Take from a box that is there the tokens that ``box`` does not name, and end the sessions that it says are over, or under a
        ticket key that it has no more; a box that takes tickets takes them by its newer key, too. Nothing is given to anybody, so that it
        is right whoever else writes the box's files, and what for.

        True if something changed. Error: ``disk_full``.
        """
        config, named = self.directory(box.server_id) / "config", {token.id for token in box.tokens}
        with full_disk_is_ours("writing who may no longer get in"), self._writing(box.server_id):
            try:
                revoked = json.loads((config / _REVOKED).read_bytes())["revoked"]
                tokens = json.loads((config / _TOKENS).read_bytes())["tokens"]
                over = [{"user": user, "at": at} for user, at in box.revoked]
                left = self._write(config / _REVOKED, _json({"revoked": [*revoked, *(each for each in over if each not in revoked)]}))
                taken = self._write(config / _TOKENS, _json({"tokens": [each for each in tokens if each["id"] in named]}))
                before, keys = json.loads((config / _TICKET_KEYS).read_bytes())["keys"], _ticket_keys(box)
                keyed = bool(before) and self._write(config / _TICKET_KEYS, _json({"keys": keys}))
            except FileNotFoundError:
                return False  # no box, or none any more
        return left or taken or keyed

    def _writing(self, server_id: str) -> threading.Lock:
        """One at a time: two would write to one unfinished file."""
        return self._locks.setdefault(server_id, threading.Lock())

    def _write(self, path: Path, content: bytes) -> bool:
        changed = _content(path) != content
        if changed:
            replace_file(path, content, mode=self._keeper.file_mode)
        discard_unfinished(path)
        return changed

    def config(self, server_id: str) -> Mapping[str, int | None]:
        """Each file of ``config/`` with the time (ns) at which it was replaced; None: it is not there."""
        return config_of(self.directory(server_id))

    def reopen(self, server_id: str) -> None:
        """See the port."""
        self._keeper.reopen(self.directory(server_id))

    def remove(self, server_id: str) -> None:
        """Remove the whole directory, the database included. It goes from sight in one rename: no half of it is ever taken for a box."""
        directory = self.directory(server_id)
        removed = self._root / f"{_REMOVED}{server_id}"
        self._keeper.remove(removed)
        try:
            directory.rename(removed)
        except FileNotFoundError:
            return
        self._keeper.remove(removed)

    def ids(self) -> Sequence[str]:
        """Ids of all box directories on disk; remains of a removal that was cut short count as well."""
        if not self._root.is_dir():
            return []
        names = {path.name.removeprefix(_REMOVED) for path in self._root.iterdir() if path.is_dir()}
        return sorted(name for name in names if _ID.fullmatch(name))


def config_of(directory: Path) -> dict[str, int | None]:
    """See ``BoxDirectories.config``."""
    return {name: _replaced_at(directory / "config" / name) for name in _ALL}


def _documents(box: Box) -> Iterator[tuple[str, bytes | dict[str, object]]]:
    """Settings before those who may in: a box that finds its settings finds all that they need, and nobody gets in before all is there.
    Who left goes before the tokens, so that nothing is open for a moment.
    """
    yield _KEYS, json.loads(box.keys.reveal())
    yield _CREDENTIALS, _credentials(box.key)
    yield _SETTINGS, box.settings
    yield _TICKET_KEYS, {"keys": _ticket_keys(box)}
    yield _REVOKED, {"revoked": [{"user": user, "at": at} for user, at in box.revoked]}
    tokens = [{"id": token.id, "sha256": token.sha256, "user": token.user, "expires": token.expires} for token in box.tokens]
    yield _TOKENS, {"tokens": tokens}
    yield _USERS, {"users": [{"name": user.name, "bcrypt": user.bcrypt} for user in box.users]}


def _ticket_keys(box: Box) -> list[dict[str, str]]:
    return [{"id": key.id, "key": key.key.reveal()} for key in box.ticket_keys]


def _says(path: Path, document: bytes | dict[str, object]) -> bool:
    content = _content(path)
    if content is None or isinstance(document, bytes):
        return content == document
    try:
        return bool(json.loads(content) == document)
    except ValueError:
        return False


def _bytes(document: bytes | dict[str, object]) -> bytes:
    return document if isinstance(document, bytes) else _json(document)


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _credentials(key: StorageKey) -> bytes:
    """An AWS credentials file. It knows no quoting: a key with a line break would be read as another setting."""
    values = {"aws_access_key_id": key.access_key_id, "aws_secret_access_key": key.secret_access_key.reveal()}
    for name, value in values.items():
        if not _PRINTABLE.fullmatch(value):
            raise ValueError(f"{name} has characters that a credentials file cannot hold")
    return ("[default]\n" + "".join(f"{name} = {value}\n" for name, value in values.items())).encode()


def _replaced_at(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
