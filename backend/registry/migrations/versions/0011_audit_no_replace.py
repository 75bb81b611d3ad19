"""SQLite lets an INSERT OR REPLACE take an entry's place without a word to the triggers that refuse its removal: that is refused, too.

PostgreSQL's only way to that is ON CONFLICT DO UPDATE, which its trigger refuses since 0009.
"""

from alembic import op

revision = "0011"
down_revision = "0010"

_SQLITE = """
CREATE TRIGGER audit_no_replace BEFORE INSERT ON audit WHEN EXISTS (SELECT 1 FROM audit WHERE id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END
"""


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.execute(_SQLITE)
