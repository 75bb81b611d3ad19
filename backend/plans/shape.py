"""What a plan is: its steps with their undo beside them, and what is said at its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy.orm import Session

from backend.errors import ServiceError
from backend.plans.world import Work
from backend.registry.models import Server

End = Callable[[Work, Session, Server], None]
BadEnd = Callable[[Work, Session, Server, ServiceError], None]


@dataclass(frozen=True)
class Step:
    """One step: ``do`` makes sure of something, ``undo`` of its absence. A plan's first step that ``starts`` a box waits for a place to
    do it; the plan keeps that one place until its last step.
    """

    name: str
    do: Callable[[Work], None]
    undo: Callable[[Work], None] | None = None
    starts: bool = False


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Steps in order; ``succeed`` or ``fail`` says in the registry, in the transaction that ends the operation, how it ended."""

    steps: tuple[Step, ...]
    succeed: End
    fail: BadEnd
