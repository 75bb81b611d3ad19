"""The words of the house as values. No input or output here; everything else may import it."""

from __future__ import annotations

import enum
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from mlwf.secret import Secret

ENV_NAME: Final = r"^[a-z0-9][a-z0-9_-]{1,254}$"
"""2 to 255 characters, lower-case letters, digits, ``-`` and ``_``, first a letter or digit."""

BUCKET_NAME: Final = r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$"
"""S3's rule for a bucket's name, without its finer points (see ``bucket_name_is_valid``)."""

_ADDRESS_LIKE = re.compile(r"^\d{1,3}(\.\d{1,3}){3}$")
_ID_LETTERS: Final = "abcdefghjkmnpqrstuvwxyz"
_ID_ALPHABET: Final = _ID_LETTERS + "23456789"
ID_LENGTH: Final = 12


class Desired(enum.StrEnum):
    """What was asked for."""

    RUNNING = "running"
    STOPPED = "stopped"
    ABSENT = "absent"


class Status(enum.StrEnum):
    """What users see."""

    CREATING = "creating"
    RUNNING = "running"
    SLEEPING = "sleeping"
    STOPPED = "stopped"
    FAILED = "failed"
    DELETING = "deleting"
    DELETED = "deleted"


class OperationKind(enum.StrEnum):
    """What an operation does to its server."""

    CREATE = "create"
    START = "start"
    STOP = "stop"
    DELETE = "delete"
    RESTORE = "restore"
    PURGE = "purge"
    USERS = "users"
    STORAGE = "storage"
    RESIZE = "resize"
    UPGRADE = "upgrade"
    ROLLBACK = "rollback"


class OperationState(enum.StrEnum):
    """How far an operation is."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


UNFINISHED: Final = (OperationState.PENDING, OperationState.RUNNING)
FINISHED: Final = (OperationState.SUCCEEDED, OperationState.FAILED)


class StepState(enum.StrEnum):
    """How far a step of an operation is; ``undone`` when a later one failed and this one was taken back."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNDONE = "undone"


class ArtifactAccess(enum.StrEnum):
    """How clients reach artifacts: through MLflow, or straight at the object store with their own keys."""

    PROXIED = "proxied"
    DIRECT = "direct"


class BoxState(enum.StrEnum):
    """What a box says of itself (``/mlflow/-/health``), and ``ABSENT``/``SILENT``, which only an observer can say."""

    ASLEEP = "asleep"
    WAKING = "waking"
    AWAKE = "awake"
    DRAINING = "draining"
    FAILED = "failed"
    ABSENT = "absent"
    SILENT = "silent"


@dataclass(frozen=True, kw_only=True)
class Group:
    """A Unix group as NSS knows it."""

    name: str
    gid: int


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Somebody whose identity was proved, with the groups that NSS gives them now."""

    user: str
    uid: int
    groups: tuple[Group, ...]
    admin: bool = False
    scheme: str = "peercred"

    def group(self, name: str) -> Group | None:
        """The caller's own group of that name, if it is one."""
        return next((g for g in self.groups if g.name == name), None)

    @cached_property
    def gids(self) -> frozenset[int]:
        """The numbers of the caller's groups, made once: a list asks for them ten times per server."""
        return frozenset(group.gid for group in self.groups)


@dataclass(frozen=True, kw_only=True)
class StorageKey:
    """A key pair of an object store."""

    access_key_id: str
    secret_access_key: Secret


@dataclass(frozen=True, kw_only=True)
class Storage:
    """Where a server's artifacts live: ``s3://bucket/prefix`` at an endpoint (None: AWS itself), in a region."""

    bucket: str
    prefix: str
    endpoint_url: str | None
    region: str


@dataclass(frozen=True, kw_only=True)
class SizeClass:
    """How much of the host one server may take. ``memory`` in bytes, ``cpus`` in cores (fractions are fine), ``pids``: processes and
    threads; ``log``: bytes of what the daemon keeps of MLflow's container's words (and as many of its older part); ``workers``: MLflow's
    worker processes; ``genai_jobs``: whether MLflow's server-side GenAI jobs may run;
    ``gateway``: whether MLflow's AI gateway is open; ``gateway_private``: whether its models may be at private addresses and without TLS.

    A runtime holds what it can: the process runtime knows of ``workers`` and what follows alone.
    """

    name: str
    memory: int
    cpus: float
    pids: int
    workers: int
    log: int = 1024**2
    genai_jobs: bool = False
    gateway: bool = False
    gateway_private: bool = False


@dataclass(frozen=True, kw_only=True)
class User:
    """A BASIC-auth user of one tracking server: the name and the bcrypt hash."""

    name: str
    bcrypt: str


@dataclass(frozen=True, kw_only=True)
class TicketKey:
    """A key with which sign-in tickets for one tracking server are signed: 32 bytes in base64url. ``made_at``: seconds since 1970."""

    id: str
    key: Secret
    made_at: float


@dataclass(frozen=True, kw_only=True)
class BoxToken:
    """A bearer token as a box knows it: never the token, but its SHA-256. ``expires``: seconds since 1970."""

    id: str
    sha256: str
    user: str
    expires: float


@dataclass(frozen=True, kw_only=True)
class Box:
    """All that a box's ``config/`` holds, as one value: what the service wants to be in force. ``uids``: of its two containers (gate,
    mlflow); None where a box runs as the service's own account.
    """

    server_id: str
    settings: dict[str, object]
    key: StorageKey
    keys: Secret
    """Those that its MLflow needs for life, as JSON (docs/reference/box.md, ``config/keys.json``)."""
    users: tuple[User, ...] = ()
    ticket_keys: tuple[TicketKey, ...] = ()
    """The newest first."""
    tokens: tuple[BoxToken, ...] = ()
    revoked: tuple[tuple[str, float], ...] = ()
    """Users whose sign-ins from before that time (seconds since 1970) count no more."""
    uids: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What a runtime sees of one box. ``detail`` is one sentence where something is wrong; ``stranger``: another program has its port;
    ``config``: the files of its ``config/`` that it has taken over, each by the time at which it was replaced (ns; None: not there).
    """

    state: BoxState
    detail: str | None = None
    mlflow_version: str | None = None
    stranger: bool = False
    config: Mapping[str, int | None] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What a try of the object store found, when it went well: how many *other* buckets the key opens (None: it may not list)."""

    other_buckets: int | None = None


def new_server_id() -> str:
    """An opaque id: 12 characters, a letter first, without the look-alikes 0 1 i l o. 59 bits of chance."""
    return secrets.choice(_ID_LETTERS) + "".join(secrets.choice(_ID_ALPHABET) for _ in range(ID_LENGTH - 1))


def new_operation_id() -> str:
    """An operation's id, ``op_`` and 16 hexadecimal digits."""
    return f"op_{secrets.token_hex(8)}"


def new_token_id() -> str:
    """A bearer token's id, by which people name it: as a server's."""
    return new_server_id()


def prefix_of(server_id: str, root: str) -> str:
    """The server's own prefix in its bucket. Ids never repeat, so two servers on one bucket never meet."""
    return f"{root}/{server_id}"


def bucket_name_is_valid(name: str) -> bool:
    """S3's naming rules (Amazon S3 User Guide, "General purpose bucket naming rules")."""
    return (
        re.fullmatch(BUCKET_NAME, name) is not None
        and ".." not in name
        and _ADDRESS_LIKE.match(name) is None
        and not name.startswith(("xn--", "sthree-", "amzn-s3-demo-"))
        and not name.endswith(("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"))
    )
