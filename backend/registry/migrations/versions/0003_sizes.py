"""Sizes of servers: those that are there get the default one."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("servers", sa.Column("size", sa.String(length=32), nullable=False, server_default=sa.text("''")))
