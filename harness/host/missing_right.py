"""A right that a login lacks, by what a tool prints."""

from __future__ import annotations

import re

#: messages of SQLSTATE 42501 (https://www.postgresql.org/docs/current/errcodes-appendix.html). An operating system
#: writes `Permission denied` without a preposition
_LACKS = re.compile(
    r"\b42501\b|(?i:insufficient_?privilege)|permission denied (?:for|to)\b|permission denied: \""
    r"|(?i:must be (?:a )?superuser|must be (?:the )?owner of|must be (?:a )?member of|must be able to set role"
    r"|must have (?:the )?\w+ (?:option|privilege|attribute)|only superusers?\b|only roles with)"
)
#: those about what the owner of a database who creates databases and roles may not do. Neither a table of its own nor a
#: role: behind a pooler, a client may run as a role that another one has set
_LACKS_SUPERUSER = re.compile(
    r"(?i:must be (?:a )?superuser|only superusers?\b)|permission denied: \""
    r"|permission denied to (?!create database|\w+ role)"
    r"|permission denied for (?:language|tablespace|foreign-data wrapper|\w+ \"?pg_)"
)


def lacked_right(printed: str) -> str:
    """Return the first line of an output that shows a missing right; "" without one."""
    return _first(_LACKS, printed)


def lacked_superuser(printed: str) -> str:
    """Return the first line of an output that shows a missing right of a superuser; "" without one."""
    return _first(_LACKS_SUPERUSER, printed)


def _first(pattern: re.Pattern[str], printed: str) -> str:
    return next((line for line in printed.splitlines() if pattern.search(line)), "").strip()
