"""The adoption tables, and how they are recognised: by their columns (see `headings`), or by a marker above them."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection


class TableKind(StrEnum):
    """The adoption tables, each with the name that users know."""

    TOPOLOGY = "STG-01 topology"
    PATHS = "STG-02 audited paths"
    QUESTIONS = "topology questions"
    CHECKLIST = "checklist walkthrough"
    PREFLIGHT = "distribution preflight"
    PARITY = "in-repo parity"
    ISSUES = "prioritised issues"


#: a marker on a line of its own names the kind of the next table
MARKERS = {"STG-HOST-TOPOLOGY-TEMPLATE": TableKind.TOPOLOGY, "STG-AUDITED-PATH-RUBRIC": TableKind.PATHS}

#: by which columns a table is recognised: it has all of the first set, and at least that many of the second
_SIGNS: dict[TableKind, tuple[frozenset[str], frozenset[str], int]] = {
    TableKind.TOPOLOGY: (
        frozenset({"environment"}),
        frozenset({"class", "chain", "product", "mode", "prepare", "sandbox", "matches"}),
        3,
    ),
    TableKind.PATHS: (frozenset({"path", "status"}), frozenset({"kind", "evidence"}), 1),
    TableKind.QUESTIONS: (frozenset({"question", "matches"}), frozenset(), 0),
    TableKind.CHECKLIST: (frozenset({"checklist", "status"}), frozenset(), 0),
    TableKind.PREFLIGHT: (frozenset({"item", "status", "evidence"}), frozenset(), 0),
    TableKind.PARITY: (frozenset({"check", "status", "evidence"}), frozenset(), 0),
    TableKind.ISSUES: (frozenset({"p", "id", "symptom"}), frozenset(), 0),
}


def kind_by_columns(keys: Collection[str]) -> TableKind | None:
    """Return the kind of a table by the keys of its columns; None for any other table."""
    present = set(keys)
    return next(
        (
            kind
            for kind, (required, optional, least) in _SIGNS.items()
            if required <= present and len(optional & present) >= least
        ),
        None,
    )


def marker_in(line: str) -> TableKind | None:
    """Return the kind that a marker on this line names; None when the line is not a marker alone."""
    return MARKERS.get(line.strip(" \t*_`:"))
