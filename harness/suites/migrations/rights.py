"""A right that the login of the commands lacks, by what a tool prints. The harness may have chosen another login."""

from __future__ import annotations

import re

from harness.host.declarations import DEFAULT_ROLE
from harness.suites.command_roles import RIGHTS

#: messages of SQLSTATE 42501 (https://www.postgresql.org/docs/current/errcodes-appendix.html). An operating system writes
#: `Permission denied` without a preposition
_LACKS = re.compile(
    r"\b42501\b|(?i:insufficient_?privilege)|permission denied (?:for|to)\b|permission denied: \""
    r"|(?i:must be (?:a )?superuser|must be (?:the )?owner of|must be (?:a )?member of|must be able to set role"
    r"|must have (?:the )?\w+ (?:option|privilege|attribute)|only superusers?\b|only roles with)"
)
_LONGEST = 160


def lacked_right(printed: str) -> str:
    """Return the first line of a command's output that shows a missing right; "" without one."""
    found = next((line for line in printed.splitlines() if _LACKS.search(line)), "").strip()
    return found if len(found) <= _LONGEST else f"{found[: _LONGEST - 1]}…"


def chosen_by_the_harness(what: str, line: str) -> str:
    """Return why nothing follows from a missing right, and which key decides about it.

    :param what: what happened, such as `up failed`.
    :param line: what the tool printed.
    """
    others = " or ".join(f'role = "{role}" ({RIGHTS[role]})' for role in ("createdb", "superuser"))
    return (
        f"{what}, and its login lacks a right: {line}; the declaration names no role, so the harness chose "
        f'"{DEFAULT_ROLE}", which {RIGHTS[DEFAULT_ROLE]}; declare the role that migrates your database: {others}, or '
        f'role = "{DEFAULT_ROLE}", and this is an Issue'
    )
