"""Indices by which operations are found when there are hundreds of thousands: nearly all of them have the state ``succeeded``."""

from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.drop_index("ix_operations_server_id", "operations")
    op.drop_index("ix_operations_state", "operations")
    op.create_index("ix_operations_server_id_state", "operations", ["server_id", "state"])
    op.create_index("ix_operations_state_finished_at", "operations", ["state", "finished_at"])
    op.create_index("ix_operations_created_at", "operations", ["created_at"])
