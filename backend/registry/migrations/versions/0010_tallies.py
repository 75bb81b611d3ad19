"""Counts of operations that ended, which outlive the operations; those that are still known are counted now."""

import sqlalchemy as sa
from alembic import op

from backend.registry.models import UtcTime
from backend.registry.tally import bound_of

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    tallies = op.create_table(
        "operation_tallies",
        sa.Column("kind", sa.String(length=16), primary_key=True),
        sa.Column("state", sa.String(length=16), primary_key=True),
        sa.Column("bound", sa.String(length=16), primary_key=True),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
    )
    operations = sa.table(
        "operations", sa.column("kind"), sa.column("state"), sa.column("created_at", UtcTime()), sa.column("finished_at", UtcTime())
    )
    known: dict[tuple[str, str, str], list[float]] = {}
    for kind, state, created_at, finished_at in op.get_bind().execute(sa.select(operations).where(operations.c.finished_at.is_not(None))):
        seconds = max(0.0, (finished_at - created_at).total_seconds())
        known.setdefault((kind, state, bound_of(seconds)), []).append(seconds)
    rows = [
        {"kind": kind, "state": state, "bound": bound, "count": len(found), "seconds": sum(found)}
        for (kind, state, bound), found in known.items()
    ]
    if rows:
        op.bulk_insert(tallies, rows)
