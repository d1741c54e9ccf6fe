"""SQLSTATEs in the output of a program: drivers print them as codes, as names of classes, or only as messages."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from harness.database import SQLSTATES

if TYPE_CHECKING:
    from collections.abc import Iterator

_CODES = frozenset(SQLSTATES.values())
#: a code, or the name of a class, is the group. A code without words around it counts only if it has a letter that
#: ordinary numbers do not have
_CODE_PATTERNS = tuple(
    re.compile(pattern)
    for pattern in (
        # Go's pgx `(SQLSTATE 42P05)`, PHP's `SQLSTATE[42P05]`, JDBC's `SQLState: 42P05`, Rust's `SqlState(E42P05)`
        r"(?i:\bsqlstate)\W{0,4}E?([0-9A-Z]{5})\b",
        # node-postgres `code: '42P05'`, Postgrex `pg_code: "42P05"`, JSON
        r"code[\"']?\s{0,3}[:=]\s{0,3}[\"']([0-9A-Z]{5})[\"']",
        # psql with VERBOSITY=verbose `ERROR:  42P05: …`, Postgrex `ERROR 42P05 (duplicate_prepared_statement)`
        r"\b(?:ERROR|FATAL|PANIC):?\s{1,3}([0-9A-Z]{5})\b",
        r"(?<![\w-])([0-9FHPX][0-9A-Z]P[0-9]{2})(?![\w-])",
        r"\b(?:psycopg2?\.errors|asyncpg\.exceptions(?:\._base)?)\.(\w{1,60})",
    )
)
#: messages of PostgreSQL, and the last two of PgBouncer, for drivers that print nothing else
_MESSAGES = tuple(
    (sqlstate, re.compile(message))
    for sqlstate, message in (
        ("42P05", r"prepared statement \"[^\"\n]{0,80}\" already exists"),
        ("26000", r"prepared statement \"[^\"\n]{0,80}\" does not exist|unnamed prepared statement does not exist"),
        ("25P02", r"current transaction is aborted, commands ignored"),
        ("57P01", r"terminating connection due to administrator command"),
        ("57P03", r"the database system is (?:starting up|shutting down|in recovery mode|not yet accepting)"),
        ("53300", r"sorry, too many clients already|remaining connection slots are reserved"),
        ("08P01", r"transaction blocks not allowed in statement pooling mode"),
        ("08P01", r"server conn crashed\?|query_wait_timeout"),
    )
)


def sqlstates_in(text: str) -> tuple[str, ...]:
    """Return the SQLSTATEs of the errors in a text, each once, in the order of their first appearance."""
    return tuple(dict.fromkeys(sqlstate for _, sqlstate in sorted(_found(text))))


def _found(text: str) -> Iterator[tuple[int, str]]:
    for pattern in _CODE_PATTERNS:
        for match in pattern.finditer(text):
            word = match[1]
            code = word if word in _CODES else SQLSTATES.get(word) or SQLSTATES.get(word.removesuffix("Error"))
            if code:
                yield match.start(), code
    for code, message in _MESSAGES:
        for match in message.finditer(text):
            yield match.start(), code
