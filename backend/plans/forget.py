"""The end of a server's row, and whether anybody ever knew the server."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from backend.domain import OperationKind, OperationState
from backend.registry.models import Operation, Server
from backend.wishes import portpool


def forget_server(session: Session, server: Server, *, rest_until: datetime | None) -> None:
    """The row goes, and its port rests until then (None: it need not rest). Operations and audit stay."""
    port = server.port
    session.delete(server)
    session.flush()
    portpool.release(session, port, rest_until)


def was_never_made(session: Session, server: Server) -> bool:
    """Whether its create failed: then no user ever knew it."""
    failed = Operation.kind == OperationKind.CREATE, Operation.state == OperationState.FAILED
    return session.scalars(select(Operation.id).where(Operation.server_id == server.id, *failed)).first() is not None
