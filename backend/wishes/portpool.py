"""Ports: each tracking server keeps its own for life, and a port that was known to jobs rests before another gets it."""

from __future__ import annotations

import socket
from datetime import UTC, datetime

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from backend.errors import ServiceError
from backend.registry.models import Port, now
from backend.settings import Settings
from backend.sure_time import last_sure


def allocate(session: Session, settings: Settings, server_id: str) -> int:
    """Give the server a port that nobody ever had, else one that has rested out; one that can be bound now. Error: ``ports_exhausted``.

    Within the caller's writing transaction, which keeps two from getting the same.
    """
    rows = {row.port: row for row in session.scalars(select(Port))}
    span, at = range(settings.port_first, settings.port_last + 1), _surely(settings)
    fresh = (port for port in span if port not in rows)
    rested = (port for port in span if port in rows and _has_rested(rows[port], at))
    for port in (*fresh, *rested):
        if is_bindable(settings.listen_address, port):
            row = session.merge(Port(port=port, server_id=server_id, rests_until=None))
            session.flush()
            return row.port
    raise ServiceError("ports_exhausted", range=f"{settings.port_first}-{settings.port_last}")


def joined(address: str, port: int) -> str:
    """``address:port`` as a URL's host and port are written, an IPv6 address in brackets (RFC 3986, 3.2.2)."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def count_free(session: Session, settings: Settings) -> int:
    """How many ports of the range ``allocate`` could give, as far as the registry knows."""
    taken = or_(Port.server_id.is_not(None), Port.rests_until.is_(None), Port.rests_until > _surely(settings))
    in_range = Port.port.between(settings.port_first, settings.port_last)
    count = session.scalar(select(func.count()).select_from(Port).where(taken, in_range)) or 0
    return settings.port_last - settings.port_first + 1 - count


def release(session: Session, port: int, rest_until: datetime | None) -> None:
    """Take the port from its server: it rests until then, or is fresh at once (None: it need not rest). Gone already is fine.

    The server's own row must be gone, or have another port, before.
    """
    row = session.get(Port, port)
    if row is None:
        return
    if rest_until is None:
        session.delete(row)
    else:
        row.server_id, row.rests_until = None, rest_until
    session.flush()


def release_all(session: Session, server_id: str) -> None:
    """The ports of a box that nobody knew are fresh again; it has no row of its own."""
    for port in session.scalars(select(Port.port).where(Port.server_id == server_id)).all():
        release(session, port, None)


def is_bindable(address: str, port: int) -> bool:
    """Whether a program could listen there now. Connections that linger after their listener's end do not count, as for nginx."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((address, port))
        except OSError:
            return False
    return True


def _surely(settings: Settings) -> datetime:
    """What time it is at least: a clock that is ahead, as after a boot, must give nobody a port to which jobs still send a password."""
    sure = last_sure(settings.sure_time_file)
    return now() if sure is None else min(now(), datetime.fromtimestamp(sure, UTC))


def _has_rested(row: Port, at: datetime) -> bool:
    return row.server_id is None and row.rests_until is not None and row.rests_until <= at
