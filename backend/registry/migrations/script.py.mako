"""${message}"""

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    """Towards the newer form. There is no way back: restore a backup instead."""
    ${upgrades if upgrades else "pass"}
