"""Who asked for what: one row per request that changes something, written in the same transaction as the change."""

from __future__ import annotations

from sqlalchemy.orm import Session

from backend.domain import Caller
from backend.registry.models import AuditEntry, Operation, Server


def record(
    session: Session, *, caller: Caller, action: str, server: Server, operation: Operation | None = None, request_id: str | None = None
) -> None:
    """Append the entry. Rows are never changed and hold no secret. Without an operation, ``request_id`` says which request it was."""
    session.add(
        AuditEntry(
            user=caller.user,
            uid=caller.uid,
            scheme=caller.scheme,
            action=action,
            group_name=server.group_name,
            env_name=server.env_name,
            server_id=server.id,
            operation_id=operation.id if operation else None,
            request_id=operation.request_id if operation else request_id,
        )
    )


def record_orphan(session: Session, *, caller: Caller, server_id: str) -> None:
    """What is left of a server that no row knows is removed: of its group and name nothing is known."""
    session.add(
        AuditEntry(
            user=caller.user, uid=caller.uid, scheme=caller.scheme, action="remove_orphan", group_name="", env_name="", server_id=server_id
        )
    )
