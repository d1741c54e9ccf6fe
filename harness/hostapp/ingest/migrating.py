"""Applies the migrations, or takes them back. Running it again, or twice at a time, is safe, also behind a pooler."""

from __future__ import annotations

import logging
from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from sqlalchemy import NullPool, create_engine
from sqlalchemy.exc import SQLAlchemyError

from ..log_lines import described
from .settings import database_url

_LOG = logging.getLogger("ingest.migrate")


def migrate(*, down: bool = False) -> int:
    """Bring the schema to its newest revision, or remove all tables, and return the exit code.

    :raises SettingsError: without DATABASE_URL.
    """
    url = database_url()

    def connect() -> psycopg.Connection:
        # a pooler may send the next statement to a server connection that lacks a prepared statement
        return psycopg.connect(url, prepare_threshold=None, connect_timeout=10, application_name="ingest migrate")

    configuration = Config()
    configuration.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    engine = create_engine("postgresql+psycopg://", creator=connect, poolclass=NullPool)
    try:
        with engine.begin() as connection:
            configuration.attributes["connection"] = connection
            if down:
                command.downgrade(configuration, "base")
            else:
                command.upgrade(configuration, "head")
    except (psycopg.Error, SQLAlchemyError) as error:
        cause = getattr(error, "orig", None) or error  # SQLAlchemy wraps the error of psycopg
        _LOG.error("the migration failed, and nothing was changed: %s", described(cause))
        return 1
    _LOG.info("the migration is complete", extra={"fields": {"direction": "down" if down else "up"}})
    return 0
