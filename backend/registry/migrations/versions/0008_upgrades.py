"""Upgrades: the trial's box, and what a server had before."""

import sqlalchemy as sa
from alembic import op

from backend.registry.models import UtcTime

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("servers", sa.Column("trial_id", sa.String(length=12), nullable=True))
    op.add_column("servers", sa.Column("previous_version", sa.String(length=32), nullable=True))
    op.add_column("servers", sa.Column("previous_revision", sa.String(length=64), nullable=True))
    op.add_column("servers", sa.Column("previous_until", UtcTime(), nullable=True))
    op.add_column("servers", sa.Column("upgraded_by", sa.String(length=32), nullable=True))
