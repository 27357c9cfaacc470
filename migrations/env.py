"""Run by Alembic to bring a database to a revision, inside a transaction that is already open.

`broker.adapters.migrations` opens it and holds the lock. For `alembic revision
--autogenerate` call that module's functions, not the `alembic` command: there is no
alembic.ini, since the address of the database comes from the broker's settings.
"""

from alembic import context

from broker.adapters.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
