"""Brings a database to the schema of this version. The steps ship in `migrations/versions`."""

from alembic import command
from alembic.config import Config
from sqlalchemy import text

from rorqual.platform.database import Database

# Any constant does: two servers that start together take turns on PostgreSQL.
_MIGRATION_LOCK = 0x526F7271


def migrate(database: Database, revision: str = "head") -> None:
    """Applies every step that is missing, all in one transaction."""
    config = Config()
    config.set_main_option("script_location", "rorqual.platform:migrations")
    config.set_main_option("path_separator", "os")
    with database.engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
