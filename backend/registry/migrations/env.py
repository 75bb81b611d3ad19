"""Alembic's entry: runs the revisions on the connection that ``Registry.migrate`` hands over, all in its one transaction."""

from alembic import context

from backend.registry.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
