"""The first form."""

import sqlalchemy as sa
from alembic import op

from backend.registry.models import UtcTime

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("at", UtcTime(), nullable=False),
        sa.Column("user", sa.String(length=255), nullable=False),
        sa.Column("uid", sa.BigInteger(), nullable=False),
        sa.Column("scheme", sa.String(length=16), nullable=False),
        sa.Column("action", sa.String(length=32), nullable=False),
        sa.Column("group_name", sa.String(length=255), nullable=False),
        sa.Column("env_name", sa.String(length=255), nullable=False),
        sa.Column("server_id", sa.String(length=12), nullable=True),
        sa.Column("operation_id", sa.String(length=32), nullable=True),
        sa.Column("request_id", sa.String(length=64), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "ports",
        sa.Column("port", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("server_id", sa.String(length=12), nullable=True),
        sa.Column("rests_until", UtcTime(), nullable=True),
        sa.PrimaryKeyConstraint("port"),
    )
    op.create_table(
        "servers",
        sa.Column("id", sa.String(length=12), nullable=False),
        sa.Column("group_name", sa.String(length=255), nullable=False),
        sa.Column("gid", sa.BigInteger(), nullable=False),
        sa.Column("env_name", sa.String(length=255), nullable=False),
        sa.Column("created_by", sa.String(length=255), nullable=False),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.Column("updated_at", UtcTime(), nullable=False),
        sa.Column("desired", sa.String(length=16), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.JSON(), nullable=True),
        sa.Column("observed_at", UtcTime(), nullable=True),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("port", sa.Integer(), nullable=False),
        sa.Column("mlflow_version", sa.String(length=32), nullable=False),
        sa.Column("schema_revision", sa.String(length=64), nullable=False),
        sa.Column("idle_seconds", sa.Integer(), nullable=False),
        sa.Column("bucket", sa.String(length=63), nullable=False),
        sa.Column("prefix", sa.String(length=255), nullable=False),
        sa.Column("endpoint_url", sa.Text(), nullable=True),
        sa.Column("region", sa.String(length=64), nullable=False),
        sa.Column("artifact_access", sa.String(length=16), nullable=False),
        sa.Column("access_key_id", sa.String(length=255), nullable=False),
        sa.Column("secret_access_key", sa.Text(), nullable=False),
        sa.Column("other_buckets", sa.Integer(), nullable=True),
        sa.Column("box_keys", sa.Text(), nullable=False),
        sa.Column("users", sa.JSON(), nullable=False),
        sa.Column("users_updated_at", UtcTime(), nullable=True),
        sa.Column("known_to", sa.JSON(), nullable=False),
        sa.Column("former_members", sa.JSON(), nullable=False),
        sa.Column("deleted_at", UtcTime(), nullable=True),
        sa.Column("restorable_until", UtcTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["port"],
            ["ports.port"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_servers_group_name"), "servers", ["group_name"], unique=False)
    op.create_index(
        "one_name_per_group",
        "servers",
        ["group_name", "env_name"],
        unique=True,
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_table(
        "operations",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("server_id", sa.String(length=12), nullable=True),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("group_name", sa.String(length=255), nullable=False),
        sa.Column("env_name", sa.String(length=255), nullable=False),
        sa.Column("requested_by", sa.String(length=255), nullable=False),
        sa.Column("request_id", sa.String(length=64), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("payload", sa.Text(), nullable=True),
        sa.Column("steps", sa.JSON(), nullable=False),
        sa.Column("error", sa.JSON(), nullable=True),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.Column("finished_at", UtcTime(), nullable=True),
        sa.ForeignKeyConstraint(["server_id"], ["servers.id"], ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_operations_server_id"), "operations", ["server_id"], unique=False)
    op.create_index(op.f("ix_operations_state"), "operations", ["state"], unique=False)
