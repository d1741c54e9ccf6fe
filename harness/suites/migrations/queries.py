"""The queries of the suite, and a session for them that nothing in the database influences."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from harness.database import connect, load_queries

if TYPE_CHECKING:
    from harness.database import Client
    from harness.lab.lab import Lab

#: the class of the advisory lock that is the gate; an arbitrary number that no application uses
GATE = 1_752_134_247
QUERIES = {
    name: text.replace("@gate@", str(GATE))
    for name, text in load_queries(Path(__file__).parent / "catalogue.sql").items()
}
#: migrations may set anything for their database, and create event triggers
_OWN_SETTINGS = {
    "search_path": "pg_catalog",
    "role": "none",
    "session_replication_role": "replica",
    "default_transaction_read_only": "off",
    "quote_all_identifiers": "off",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
}
_OPTIONS = " ".join(f"-c {name}={value}" for name, value in _OWN_SETTINGS.items())


def enter(lab: Lab, database: str) -> Client:
    """Connect to a database of migrations as superuser, past the pooler and whatever is set for the database."""
    return connect(lab.admin(database), application_name="pooler-harness admin", options=_OPTIONS)
