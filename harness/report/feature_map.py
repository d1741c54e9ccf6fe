"""The feature map: a row for each PostgreSQL feature, a column for each topology; and the same for drivers.

What an application must not do with the audit trail has rows there as well: it breaks without an error, too.
"""

from __future__ import annotations

import re
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from msgspec import Struct

from harness.model import Behaviour
from harness.report.limits import LimitKind, limit_kind, practice_text, practice_word
from harness.report.outcomes import DOCUMENTED, DRIVERS, is_shown, mark_of, text_of, word_of
from harness.suites.pooling.advice import advice_for, practices

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from harness.report.evidence import Evidence, Row


class FeatureCell(Struct, frozen=True, kw_only=True):
    """The outcome of one feature in one topology."""

    #: `works`, `fails (26000)`, `lost`, `wrong`, `leaks`; the status if no outcome was observed
    text: str
    #: the word alone, which decides the colour: that of a behaviour, or `mustnot`; "" without an outcome
    word: str
    #: `Issue`, `known Issue`, `known defect`, `better than …`, or "" for a documented outcome
    mark: str
    #: the anchor of the row with the evidence
    anchor: str
    command: str


class FeatureRow(Struct, frozen=True, kw_only=True):
    """One feature."""

    feature: str
    check: str
    #: what to do instead, in one or two sentences, and where that is documented; "" without advice
    instead: str = ""
    instead_source: str = ""
    #: by topology; a topology that does not verify the feature has no cell
    cells: dict[str, FeatureCell]


class Advised(NamedTuple):
    """Neighbouring features with the same advice, which is said once; "" without advice."""

    instead: str
    source: str
    rows: tuple[FeatureRow, ...]


class FeatureGroup(Struct, frozen=True, kw_only=True):
    """Features that belong together."""

    name: str
    rows: tuple[FeatureRow, ...]
    #: whether they are practices that an application must avoid, and no features of PostgreSQL
    is_practices: bool = False

    @property
    def advised(self) -> tuple[Advised, ...]:
        """The rows in their order, by what to do instead."""
        return tuple(
            Advised(*advice, tuple(rows))
            for advice, rows in groupby(self.rows, key=lambda row: (row.instead, row.instead_source))
        )


class DriverRow(Struct, frozen=True, kw_only=True):
    """One driver with its settings."""

    driver: str
    check: str
    settings: str
    versions: str
    cells: dict[str, FeatureCell]


def anchor(row: Row) -> str:
    """Return the anchor of a row. Evidence may come from elsewhere, so every character that is not safe is replaced."""
    return re.sub(r"[^A-Za-z0-9.-]", "-", f"{row.planned.target}.{row.planned.check}")


def feature_map(evidence: Evidence) -> tuple[FeatureGroup, ...]:
    """Return the features in the order of their declaration, grouped by area."""
    found: dict[str, dict[str, dict[str, FeatureCell]]] = {}
    titles = {}
    for row in evidence.rows:
        if row.planned.feature and row.planned.area != DRIVERS and is_shown(row.planned, row.result):
            titles[row.planned.check] = row.planned.feature
            checks = found.setdefault(row.planned.area, {})
            checks.setdefault(row.planned.check, {})[row.planned.target] = _cell(row)
    features = [
        FeatureGroup(name=area, rows=tuple(_row(titles[check], check, cells) for check, cells in checks.items()))
        for area, checks in found.items()
    ]
    return (*features, *_practices(evidence))


def _practices(evidence: Evidence) -> Iterator[FeatureGroup]:
    """Yield the practices that the checks of the audit trail tried, in one group."""
    found: dict[str, dict[str, FeatureCell]] = {}
    for row in evidence.rows:
        if row.planned.check in practices() and is_shown(row.planned, row.result):
            found.setdefault(row.planned.check, {})[row.planned.target] = _practice_cell(row)
    rows = tuple(_row(practices()[check].what, check, cells) for check, cells in found.items())
    if any(cell.word for row in rows for cell in row.cells.values()):
        yield FeatureGroup(name="audit trail: what an application must not do", rows=rows, is_practices=True)


def _practice_cell(row: Row) -> FeatureCell:
    if limit_kind(*row.answer) is not LimitKind.PRACTICE:
        return _cell(row)
    return FeatureCell(
        text=practice_text(row.result),
        word=practice_word(row.result),
        mark="",
        anchor=anchor(row),
        command=row.result.reproduce,
    )


def _row(feature: str, check: str, cells: dict[str, FeatureCell]) -> FeatureRow:
    advice = advice_for(check) if any(cell.word not in ("", "works") for cell in cells.values()) else None
    return FeatureRow(
        feature=feature,
        check=check,
        instead=advice.instead if advice else "",
        instead_source=advice.source if advice else "",
        cells=cells,
    )


def _cell(row: Row, text: str = "") -> FeatureCell:
    outcome, mark = text_of(row.result), mark_of(row.result)
    return FeatureCell(
        text=(text or outcome) if outcome else str(row.status),
        word=word_of(row.result),
        mark="" if mark == DOCUMENTED else mark,
        anchor=anchor(row),
        command=row.result.reproduce,
    )


def driver_table(evidence: Evidence) -> tuple[DriverRow, ...]:
    """Return a row for each driver, with its errors and wrong results in each topology."""
    rows: dict[str, list[Row]] = {}
    for row in evidence.rows:
        if row.planned.area == DRIVERS and is_shown(row.planned, row.result):
            rows.setdefault(row.planned.feature, []).append(row)
    table = []
    for driver, found in rows.items():
        facts = next((row.result.facts for row in found if row.result.facts), {})
        table.append(
            DriverRow(
                driver=driver,
                check=found[0].planned.check,
                settings=facts.get("settings", ""),
                versions=facts.get("versions", ""),
                cells={row.planned.target: _cell(row, _counted(row.result.facts)) for row in found},
            )
        )
    return tuple(table)


def safe_drivers(rows: Iterable[DriverRow], modes: Mapping[str, str]) -> str:
    """Return which drivers work in which pool mode, in one sentence without a full stop; "" without a driver.

    :param modes: the pool mode of each topology; "" for one without a pooler.
    """
    found: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        for name, cell in row.cells.items():
            if cell.word:
                found.setdefault(modes.get(name, ""), {}).setdefault(row.driver, [])
                if cell.word != Behaviour.WORKS:
                    found[modes.get(name, "")][row.driver].append(name)
    return "; ".join(f"{f'{mode} mode' if mode else 'without a pooler'}: {_safe(of)}" for mode, of in found.items())


def _safe(broken_in: Mapping[str, Sequence[str]]) -> str:
    """Return which drivers work in one pool mode, and where the others do not.

    :param broken_in: by driver, the topologies in which it does not work.
    """
    safe = [driver for driver, names in broken_in.items() if not names]
    if len(safe) == len(broken_in):
        return f"all {len(safe)} drivers work" if len(safe) > 1 else f"{safe[0]} works"
    if not safe:
        return "none works"
    others = dict.fromkeys(name for names in broken_in.values() for name in names)
    number = len(broken_in) - len(safe)
    breaks = "other breaks" if number == 1 else "others break"
    named = ", ".join(driver.replace(", ", " with ") for driver in safe)
    return f"safe: {named} ({number} {breaks} in {', '.join(others)})"


def _counted(facts: dict[str, str]) -> str:
    """Return the errors and wrong results that a check recorded, in words; "" if it recorded none of them."""
    try:
        errors = msgspec.json.decode(facts["errors"], type=dict[str, int])
        wrong, queries = int(facts["wrong results"]), int(facts["queries"])
    except (KeyError, ValueError, msgspec.MsgspecError):  # evidence of another version of the harness
        return ""
    total = sum(errors.values())
    kinds = f" ({', '.join(errors)})" if errors else ""
    return f"{total} errors{kinds}, {wrong} wrong of {queries}"
