"""How many operations ended, how, and after how long: counted in the transaction that ends them, and kept when they are forgotten.

Numbers that only grow are what a monitoring system can add up; the rows of operations are forgotten after a while.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Any, Final

from sqlalchemy import Connection, Float, Integer, String, event, insert, inspect, update
from sqlalchemy.orm import Mapped, Mapper, mapped_column

from backend.registry.models import Base, Operation

BOUNDS: Final = (1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
"""Seconds. What took longer than the last is counted under ``ENDLESS``."""
ENDLESS: Final = "+Inf"


class Tally(Base):
    """Operations of one kind that ended in one state after at most ``bound`` seconds, and after more than the bound below it."""

    __tablename__ = "operation_tallies"

    kind: Mapped[str] = mapped_column(String(16), primary_key=True)
    state: Mapped[str] = mapped_column(String(16), primary_key=True)
    bound: Mapped[str] = mapped_column(String(16), primary_key=True)
    """As monitoring systems write it: ``5.0``, ``+Inf``."""
    count: Mapped[int] = mapped_column(Integer)
    seconds: Mapped[float] = mapped_column(Float)
    """Of all of them together."""


def bound_of(seconds: float) -> str:
    """The bound under which an operation of that length is counted."""
    place = bisect_left(BOUNDS, seconds)
    return str(BOUNDS[place]) if place < len(BOUNDS) else ENDLESS


@event.listens_for(Operation, "after_insert")
def _made(_mapper: Mapper[Any], connection: Connection, operation: Operation) -> None:
    """One that has nothing to do ends as it begins."""
    if operation.finished_at is not None:
        _count(connection, operation)


@event.listens_for(Operation, "after_update")
def _changed(_mapper: Mapper[Any], connection: Connection, operation: Operation) -> None:
    """Whatever ends it; once, since an end is never taken back."""
    history = inspect(operation).attrs.finished_at.history
    if operation.finished_at is not None and history.has_changes() and not any(history.deleted):
        _count(connection, operation)


def _count(connection: Connection, operation: Operation) -> None:
    if operation.finished_at is None:
        return
    seconds = max(0.0, (operation.finished_at - operation.created_at).total_seconds())
    where = {"kind": str(operation.kind), "state": str(operation.state), "bound": bound_of(seconds)}
    one_more = update(Tally).where(*(getattr(Tally, name) == value for name, value in where.items()))
    found = connection.execute(one_more.values(count=Tally.count + 1, seconds=Tally.seconds + seconds))
    if found.rowcount == 0:  # writers take turns: nobody else makes it meanwhile
        connection.execute(insert(Tally).values(**where, count=1, seconds=seconds))
