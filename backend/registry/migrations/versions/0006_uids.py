"""The uids of a server's containers."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    # a column that is added, and no table made anew: to drop the old one would take the rows that hang on it along
    op.add_column("servers", sa.Column("uid", sa.BigInteger(), nullable=True))
    op.create_index("ix_servers_uid", "servers", ["uid"], unique=True)
