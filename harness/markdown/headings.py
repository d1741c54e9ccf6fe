"""The columns of the adoption tables: their headings in the report, and other headings that people write.

The report prints these headings, and the linter recognises columns by them. To add a column to STG-01, add one
:class:`Column` to :data:`TOPOLOGY`, and a field named like its key to `TopologyRow` in
`harness/report/topology_rows.py`. Markdown, HTML and the linter follow. `harness/report/columns.py` maps the keys whose
cells show something else.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Sequence


class Column(Struct, frozen=True):
    """One column of an adoption table.

    :param key: the name that the linter's rules and the report's rows use for the column.
    :param heading: what the report prints; hints for the reader are in parentheses.
    :param also: a pattern of other headings that people write, in lower case and without hints.
    """

    key: str
    heading: str
    also: str = ""

    @property
    def name(self) -> str:
        """The heading without its hints, such as `Class` for `Class (CI or host)`."""
        return " ".join(_HINT.sub("", self.heading).split())


_HINT = re.compile(r"\([^()]*\)")

_ENVIRONMENT = r"environments?|env"
_EVIDENCE = r"evidence( link)?|(evidence ?/ ?)?(pointers?|notes)"
_MATCHES = r"matches prod(uction)?"
_NOTES = r"notes?( .*)?"

#: STG-01, the environments
TOPOLOGY = (
    Column("environment", "Environment", _ENVIRONMENT),
    Column("class", "Class (CI or host)", r"(evidence )?class"),
    Column("chain", "Chain (app to pooler to postgres)"),
    Column("product", "Pooler product", r"pooler( product)?"),
    Column("mode", "Pool mode", r"(pool(ing|er)? )?mode"),
    Column("pools", "Ecto pools", r"(\w+ )?pools?( sizes?)?"),
    Column("prepare", "prepare policy", r"prepared?( policy| statements)?"),
    Column("sandbox", "Sandbox note", r"sandbox( note)?"),
    Column("matches", "Matches prod", _MATCHES),
    Column("evidence", "Evidence link", _EVIDENCE),
)

#: STG-02, the audited paths
PATHS = (
    Column("path", "Path", r"(audited )?(write )?path"),
    Column("kind", "Kind (HTTP | job)"),
    Column("status", "Status (OK | Issue | N/A | Not run)"),
    Column("evidence", "Evidence / pointer", _EVIDENCE),
    Column("notes", "Notes (N/A justification if N/A)", _NOTES),
)

QUESTIONS = (
    Column("question", "Question"),
    Column("answer", "Answer"),
    Column("matches", "Matches prod?", _MATCHES),
)

CHECKLIST = (
    Column("checklist", "Checklist item (summary)", r"checklist( item)?"),
    Column("status", "Status"),
    Column("evidence", "Evidence", _EVIDENCE),
)

PREFLIGHT = (
    Column("item", "Item"),
    Column("status", "Status"),
    Column("evidence", "Evidence / notes", _EVIDENCE),
)

#: the suites of the user's own repository
PARITY = (
    Column("check", "Check"),
    Column("status", "Status"),
    Column("evidence", "Evidence", _EVIDENCE),
)

ISSUES = (
    Column("p", "P", r"p|priority"),
    Column("id", "ID"),
    Column("symptom", "Symptom"),
    Column("area", "Likely area", r"(likely )?area"),
    Column("owner", "Owner"),
    Column("link", "Link", r"links?"),
)

_TABLES = (TOPOLOGY, PATHS, QUESTIONS, CHECKLIST, PREFLIGHT, PARITY, ISSUES)


def key_of(heading: str) -> str:
    """Return the key of the column that a heading names, in any adoption table; "" for an unknown heading."""
    name = _normalised(heading)
    return next((key for key, pattern in _patterns() if re.fullmatch(pattern, name)), "")


def name_of(columns: Sequence[Column], key: str) -> str:
    """Return the name of a table's column.

    :raises KeyError: when the table has no such column.
    """
    return {column.key: column.name for column in columns}[key]


@cache
def _patterns() -> tuple[tuple[str, str], ...]:
    """Return keys with the patterns of their headings, in the order in which they are tried."""
    # "notes" alone is a column of its own, and also how some people head their evidence
    found = {("notes", _NOTES): None}
    for columns in _TABLES:
        for column in columns:
            own = re.escape(_normalised(column.heading))
            found[column.key, f"{column.also}|{own}" if column.also else own] = None
    return tuple(found)


def _normalised(heading: str) -> str:
    return " ".join(_HINT.sub("", heading.lower()).replace("?", "").replace(":", "").split())
