"""Since when a server has its status."""

import sqlalchemy as sa
from alembic import op

from backend.registry.models import UtcTime

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("servers", sa.Column("status_since", UtcTime(), nullable=True))
