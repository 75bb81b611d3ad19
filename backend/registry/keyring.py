"""The keys that encrypt secrets at rest: several, each with an id; the newest encrypts, every one of them decrypts.

They live in one file of the service's account (0600), outside the database: whoever has only the database, or only a backup of it, has
no secret. What is stored says the id of its key, ``ID:TOKEN``, so that a rotation can stop anywhere and go on later.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet, InvalidToken
from mlwf.secret import Secret
from sqlalchemy import select
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import flag_modified

from backend.atomic import replace_file
from backend.i18n import _
from backend.registry.database import Registry
from backend.registry.models import Operation, Server


class KeyringError(Exception):
    """The keys cannot be used; the message says why and the cure."""


class Keyring:
    """The key file at ``path``. May be used by several threads and processes: a file that another replaced is read again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._keys: dict[str, Fernet] = {}

    def create(self) -> bool:
        """Make the file with a first key. False when it is there already. Error: ``KeyringError``."""
        with self._alone():
            if self._path.exists():
                return False
            self._write([_new_key()])
            return True

    def refuse_loss(self, registry: Registry) -> None:
        """Error: ``KeyringError``, where the file is not there but the registry has servers, whose secrets no new key opens."""
        with registry.reading() as session:
            if not self._path.exists() and session.scalars(select(Server.id).limit(1)).first() is not None:
                raise KeyringError(
                    _("there is no key file {path}, which opens what the registry holds: put it back from the backup", path=self._path)
                )

    @property
    def newest(self) -> str:
        """The id of the key that encrypts now."""
        return next(iter(self._current()))

    def encrypt(self, secret: Secret) -> str:
        """``ID:TOKEN`` for the registry. Error: ``KeyringError`` where the file is missing or open to others."""
        keys = self._current()
        key_id, fernet = next(iter(keys.items()))
        return f"{key_id}:{fernet.encrypt(secret.reveal().encode()).decode('ascii')}"

    def decrypt(self, stored: str) -> Secret:
        """What ``encrypt`` was given. Error: ``KeyringError`` when its key is not in the file, or the text was changed."""
        key_id, _colon, token = stored.partition(":")
        fernet = self._current().get(key_id)
        if fernet is None:
            raise KeyringError(
                _(
                    "a secret was encrypted with key {key!r}, which is not in {path}: put that file back from the backup",
                    key=key_id[:16],
                    path=self._path,
                )
            )
        try:
            return Secret(fernet.decrypt(token.encode()).decode())
        except InvalidToken:
            raise KeyringError(
                _("a secret of key {key} was damaged in the registry: put the registry back from the backup", key=key_id)
            ) from None

    def rotate(self) -> str:
        """Add a newer key, which encrypts from now on; the older ones still decrypt. Returns its id."""
        with self._alone():
            key = _new_key()
            self._write([key, *self._read()])
            return str(key["id"])

    def check(self, registry: Registry) -> None:
        """Read everything stored. Error: ``KeyringError`` for what cannot be read."""
        with registry.reading() as session:
            for row, name in _stored(session):
                self.decrypt(getattr(row, name))

    def is_settled(self, registry: Registry) -> bool:
        """Whether everything stored is encrypted with the newest key."""
        newest = self.newest
        with registry.reading() as session:
            return all(_key_id(getattr(row, name)) == newest for row, name in _stored(session))

    def reencrypt(self, registry: Registry) -> int:
        """Encrypt everything stored with the newest key, in one transaction; what is so already is left alone. Returns how many changed."""
        newest = self.newest
        changed = 0
        with registry.session() as session:
            for row, name in _stored(session):
                text = getattr(row, name)
                if _key_id(text) != newest:
                    setattr(row, name, self.encrypt(self.decrypt(text)))
                    if isinstance(row, Server):
                        flag_modified(row, "updated_at")  # nobody changed the server: it keeps its time
                    changed += 1
        return changed

    def _current(self) -> dict[str, Fernet]:
        """The keys by id, newest first."""
        with self._lock:
            seen = self._stamp()
            if seen != self._seen:
                self._keys = {str(key["id"]): Fernet(key["key"]) for key in self._read()}
                self._seen = seen
            return self._keys

    def _stamp(self) -> tuple[int, int, int]:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            raise KeyringError(
                _("there is no key file {path}: `aihub init` makes it, or put it back from the backup", path=self._path)
            ) from None
        except OSError as error:
            raise KeyringError(
                _("the key file {path} cannot be looked at ({why}): run this as the service's account", path=self._path, why=error.strerror)
            ) from None
        if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            mode = f"{stat.S_IMODE(status.st_mode):04o}"
            raise KeyringError(_("the key file {path} is open to others (mode {mode}): chmod 0600 it", path=self._path, mode=mode))
        return status.st_ino, status.st_mtime_ns, status.st_size

    def _read(self) -> list[dict[str, Any]]:
        try:
            keys: list[dict[str, Any]] = json.loads(self._path.read_text(encoding="ascii"))["keys"]
            whole = bool(keys) and all(Fernet(key["key"]) and key["id"] for key in keys)
        except OSError as error:
            raise KeyringError(
                _("the key file {path} cannot be read ({why}): run this as the service's account", path=self._path, why=error.strerror)
            ) from None
        except (ValueError, KeyError, TypeError):
            whole, keys = False, []
        if not whole:  # the cause is not told: it could show a key
            raise KeyringError(_("the key file {path} is damaged: put it back from the backup", path=self._path))
        return keys

    def _write(self, keys: list[dict[str, Any]]) -> None:
        replace_file(self._path, json.dumps({"keys": keys}, indent=1).encode("ascii"))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Only one process changes the file at a time: the lock is on its folder, since the file itself is replaced."""
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)


def _new_key() -> dict[str, Any]:
    at = datetime.now(UTC)
    return {
        "id": f"k{at:%Y%m%d}-{secrets.token_hex(3)}",
        "key": Fernet.generate_key().decode("ascii"),
        "made_at": at.isoformat(timespec="seconds"),
    }


def _key_id(stored: str) -> str:
    return stored.partition(":")[0]


def _stored(session: Session) -> Iterator[tuple[Server | Operation, str]]:
    """Every place of the registry that holds something encrypted."""
    for server in session.scalars(select(Server)):
        yield server, "secret_access_key"
        yield server, "box_keys"
        if server.ticket_keys is not None:
            yield server, "ticket_keys"
    for operation in session.scalars(select(Operation).where(Operation.payload.is_not(None))):
        yield operation, "payload"
