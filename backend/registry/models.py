"""The registry's tables: the wish (``desired``, the configuration) and what was last observed. Times are UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import JSON, BigInteger, DateTime, Dialect, ForeignKey, Index, Integer, String, Text, TypeDecorator, event, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, raiseload, relationship

from backend.domain import OperationKind, OperationState, new_operation_id, new_server_id


def now() -> datetime:
    """The time, in UTC with offset."""
    return datetime.now(UTC)


class UtcTime(TypeDecorator[datetime]):
    """A time that goes in and comes out with its offset; SQLite alone would lose it."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        """Only times that say their offset are stored."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without offset")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        """UTC, said."""
        return None if value is None else value.replace(tzinfo=UTC)


class Base(DeclarativeBase):
    """The tables' common base."""

    type_annotation_map = {datetime: UtcTime(), dict[str, Any]: JSON(), list[Any]: JSON()}  # noqa: RUF012 (SQLAlchemy's own protocol)


class Server(Base):
    """One tracking server, from the request to create it until it is purged."""

    __tablename__ = "servers"
    __table_args__ = (
        # a name is taken while its server is not deleted; several deleted ones of that name may wait for their purge
        Index(
            "one_name_per_group",
            "group_name",
            "env_name",
            unique=True,
            sqlite_where=text("deleted_at IS NULL"),
            postgresql_where=text("deleted_at IS NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(String(12), primary_key=True, default=new_server_id)
    group_name: Mapped[str] = mapped_column(String(255), index=True)
    gid: Mapped[int] = mapped_column(BigInteger)
    env_name: Mapped[str] = mapped_column(String(255))
    created_by: Mapped[str] = mapped_column(String(255))
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now, onupdate=now)

    desired: Mapped[str] = mapped_column(String(16))
    status: Mapped[str] = mapped_column(String(16))
    reason: Mapped[dict[str, Any] | None] = mapped_column(default=None)
    """``{"code", "params", "log"}`` of what is wrong, shown in the reader's language."""
    observed_at: Mapped[datetime | None] = mapped_column(default=None)
    """When it was last seen. None: it was never up, and so may have no database."""
    status_since: Mapped[datetime | None] = mapped_column(default=now)
    """Since when ``status`` is what it is; set by whatever sets ``status`` (below). None: since before this was noted."""

    host: Mapped[str] = mapped_column(String(255))
    port: Mapped[int] = mapped_column(ForeignKey("ports.port"))
    uid: Mapped[int | None] = mapped_column(BigInteger, default=None, index=True, unique=True)
    """The first of the two uids of its containers, its own for life; None where it runs as the service's account."""
    mlflow_version: Mapped[str] = mapped_column(String(32))
    schema_revision: Mapped[str] = mapped_column(String(64))
    idle_seconds: Mapped[int] = mapped_column(Integer)
    size: Mapped[str] = mapped_column(String(32), default="", server_default=text("''"))
    """Name of its size class; one that the settings do not know means the default one."""

    bucket: Mapped[str] = mapped_column(String(63))
    prefix: Mapped[str] = mapped_column(String(255))
    endpoint_url: Mapped[str | None] = mapped_column(Text, default=None)
    region: Mapped[str] = mapped_column(String(64))
    artifact_access: Mapped[str] = mapped_column(String(16))
    access_key_id: Mapped[str] = mapped_column(String(255))
    secret_access_key: Mapped[str] = mapped_column(Text)
    """Encrypted by the keyring."""
    other_buckets: Mapped[int | None] = mapped_column(default=None)
    box_keys: Mapped[str] = mapped_column(Text)
    """``config/keys.json``, encrypted by the keyring."""
    ticket_keys: Mapped[str | None] = mapped_column(Text, default=None)
    """The keys of its sign-in tickets (backend.wishes.tickets), encrypted by the keyring; None on a row of an older service,
    until its next look.
    """

    users: Mapped[list[Any]] = mapped_column(default=list)
    """``[{"name", "bcrypt"}]``."""
    users_updated_at: Mapped[datetime | None] = mapped_column(default=None)
    known_to: Mapped[list[Any]] = mapped_column(default=list)
    """User names of all who, as members, could have read the password in force."""
    former_members: Mapped[list[Any]] = mapped_column(default=list)
    """Those of ``known_to`` who are members no more."""

    trial_id: Mapped[str | None] = mapped_column(String(12), default=None)
    """Id of the box in which an upgrade under way tries the new version."""
    previous_version: Mapped[str | None] = mapped_column(String(32), default=None)
    """What it had before its last upgrade, whose database is kept until ``previous_until``."""
    previous_revision: Mapped[str | None] = mapped_column(String(64), default=None)
    previous_until: Mapped[datetime | None] = mapped_column(default=None)
    upgraded_by: Mapped[str | None] = mapped_column(String(32), default=None)
    """The operation that gave it its version, once that is not taken back any more."""

    deleted_at: Mapped[datetime | None] = mapped_column(default=None)
    restorable_until: Mapped[datetime | None] = mapped_column(default=None)

    tokens: Mapped[list[Token]] = relationship(lazy="selectin", cascade="all, delete-orphan", passive_deletes=True)
    visits: Mapped[list[Visit]] = relationship(lazy="selectin", cascade="all, delete-orphan", passive_deletes=True)


@event.listens_for(Server.status, "set", active_history=True)
def _note_since(server: Server, value: str, before: object, _initiator: object) -> None:
    """Another status begins now, whoever sets it."""
    if value != before:
        server.status_since = now()


ALONE: Final = raiseload("*")
"""As an option of a question for servers: without their tokens and visits, which those need not load who look at all servers often."""


class Operation(Base):
    """One request and what became of it. Kept after its server is gone, for as long as the site keeps operations."""

    __tablename__ = "operations"
    __table_args__ = (
        # Nearly all have ended well: the state alone would lead to nearly all rows who asks for one server's or the latest.
        Index("ix_operations_server_id_state", "server_id", "state"),
        Index("ix_operations_state_finished_at", "state", "finished_at"),
        Index("ix_operations_created_at", "created_at"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True, default=new_operation_id)
    server_id: Mapped[str | None] = mapped_column(ForeignKey("servers.id", ondelete="SET NULL"))
    kind: Mapped[str] = mapped_column(String(16))
    group_name: Mapped[str] = mapped_column(String(255))
    env_name: Mapped[str] = mapped_column(String(255))
    requested_by: Mapped[str] = mapped_column(String(255))
    request_id: Mapped[str | None] = mapped_column(String(64), default=None)
    state: Mapped[str] = mapped_column(String(16))
    payload: Mapped[str | None] = mapped_column(Text, default=None)
    """What the operation needs and the server does not hold yet (JSON, encrypted by the keyring); emptied at its end."""
    steps: Mapped[list[Any]] = mapped_column(default=list)
    """``[{"name", "state", "started_at", "finished_at", "detail"}]``, whole and in order from the beginning."""
    error: Mapped[dict[str, Any] | None] = mapped_column(default=None)
    """``{"code", "params", "log"}``."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    finished_at: Mapped[datetime | None] = mapped_column(default=None)

    @classmethod
    def asked(cls, server: Server, kind: OperationKind, *, by: str, request_id: str | None = None) -> Operation:
        """What somebody asks for on that server, as it is before it begins."""
        return cls(
            id=new_operation_id(),  # known at once: the audit entry names it
            server_id=server.id,
            kind=kind,
            group_name=server.group_name,
            env_name=server.env_name,
            requested_by=by,
            request_id=request_id,
            state=OperationState.PENDING,
            steps=[],
        )


class Token(Base):
    """A bearer token that a user was given for one server (backend.wishes.access). Its text is nowhere: only its SHA-256."""

    __tablename__ = "tokens"

    id: Mapped[str] = mapped_column(String(12), primary_key=True)
    server_id: Mapped[str] = mapped_column(ForeignKey("servers.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(String(255))
    user: Mapped[str] = mapped_column(String(255))
    uid: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None] = mapped_column(default=None)
    told: Mapped[bool] = mapped_column(default=False)
    """Whether the box has taken over what this row says."""


class Visit(Base):
    """A user who was given a sign-in ticket for a server, and so may have a session there (backend.wishes.access)."""

    __tablename__ = "visits"

    server_id: Mapped[str] = mapped_column(ForeignKey("servers.id", ondelete="CASCADE"), primary_key=True)
    user: Mapped[str] = mapped_column(String(255), primary_key=True)
    uid: Mapped[int] = mapped_column(BigInteger)
    ticket_at: Mapped[datetime]
    """When the last one was given."""
    revoked_at: Mapped[datetime | None] = mapped_column(default=None)
    """Tickets and sessions from up to then count no more."""
    told: Mapped[bool] = mapped_column(default=True)
    """Whether the box has taken over what this row says."""


class Lease(Base):
    """Somebody vouches for a server until a time (backend.wishes.leases)."""

    __tablename__ = "leases"

    server_id: Mapped[str] = mapped_column(ForeignKey("servers.id", ondelete="CASCADE"), primary_key=True)
    lease_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    user: Mapped[str] = mapped_column(String(255))
    uid: Mapped[int] = mapped_column(BigInteger)
    scheme: Mapped[str] = mapped_column(String(16))
    seconds: Mapped[int] = mapped_column(Integer)
    """How long it holds from each renewal."""
    until: Mapped[datetime]
    at_end: Mapped[str] = mapped_column(String(8))
    note: Mapped[str] = mapped_column(String(255), default="")
    ended: Mapped[bool] = mapped_column(default=False)
    """Its holder ended it; the row goes when the reconciler has drawn the consequence."""
    created_at: Mapped[datetime] = mapped_column(default=now)


class Port(Base):
    """A port that a server has, or that rests: job scripts out there still hold it, with a password."""

    __tablename__ = "ports"

    port: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    server_id: Mapped[str | None] = mapped_column(String(12), default=None)
    """None while it rests."""
    rests_until: Mapped[datetime | None] = mapped_column(default=None)


class ApiToken(Base):
    """A token by which its holder is a user at the listener for tokens. Revoked or expired ones stay, as a record."""

    __tablename__ = "api_tokens"

    id: Mapped[str] = mapped_column(String(12), primary_key=True)
    user: Mapped[str] = mapped_column(String(255))
    uid: Mapped[int] = mapped_column(BigInteger)
    digest: Mapped[str] = mapped_column(String(64))
    note: Mapped[str] = mapped_column(String(255), default="")
    created_by: Mapped[str] = mapped_column(String(255))
    created_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None] = mapped_column(default=None)
    """To the hour."""
    revoked_at: Mapped[datetime | None] = mapped_column(default=None)


class AuditEntry(Base):
    """Who asked for what, appended and never changed."""

    __tablename__ = "audit"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    at: Mapped[datetime] = mapped_column(default=now)
    user: Mapped[str] = mapped_column(String(255))
    uid: Mapped[int] = mapped_column(BigInteger)
    scheme: Mapped[str] = mapped_column(String(16))
    action: Mapped[str] = mapped_column(String(32))
    group_name: Mapped[str] = mapped_column(String(255))
    env_name: Mapped[str] = mapped_column(String(255))
    server_id: Mapped[str | None] = mapped_column(String(12))
    operation_id: Mapped[str | None] = mapped_column(String(32))
    request_id: Mapped[str | None] = mapped_column(String(64))
