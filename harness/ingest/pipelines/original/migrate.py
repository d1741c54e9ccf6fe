"""Applies all migration files, in the order of their names."""

import os
from pathlib import Path

import psycopg

with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
    for path in sorted(Path(__file__).with_name("migrations").glob("*.sql")):
        print("applying", path.name)
        connection.execute(path.read_text())
print("migrations done")
