"""What alembic runs: the steps, on the connection that `migrate` opened."""

from alembic import context

from rorqual.platform.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
