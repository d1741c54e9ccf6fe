"""The features that do not behave the same in all topologies, for a reviewer who does not read the whole map."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from harness.model import Behaviour
from harness.report.limits import MUST_NOT
from harness.report.outcomes import SILENT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.report.feature_map import FeatureCell, FeatureGroup, FeatureRow


class Difference(Struct, frozen=True, kw_only=True):
    """Features with the same outcomes in the same topologies."""

    features: tuple[str, ...]
    #: the topologies in which they work
    works_in: tuple[str, ...]
    #: every other outcome, such as `fails (26000)` or `lost, known defect`, with its topologies
    elsewhere: dict[str, tuple[str, ...]]
    #: whether an application notices nothing of one of these outcomes
    silent: bool


def differences(groups: Iterable[FeatureGroup]) -> tuple[Difference, ...]:
    """Return the features with more than one outcome: those that an application does not notice first."""
    found: dict[tuple[tuple[str, str, str], ...], list[FeatureRow]] = {}
    for group in groups:
        for row in group.rows:
            cells = tuple((name, cell.text, cell.mark) for name, cell in row.cells.items() if cell.word)
            if len({text for _, text, _ in cells}) > 1:
                found.setdefault(cells, []).append(row)
    return tuple(sorted(map(_difference, found.values()), key=lambda difference: not difference.silent))


def _difference(rows: list[FeatureRow]) -> Difference:
    """Return what some features have in common; the cells of all of them are the same."""
    elsewhere: dict[str, list[str]] = {}
    cells = {name: cell for name, cell in rows[0].cells.items() if cell.word}
    for name, cell in cells.items():
        if not _works(cell):
            elsewhere.setdefault(", ".join(filter(None, (cell.text, cell.mark))), []).append(name)
    return Difference(
        features=tuple(row.feature for row in rows),
        works_in=tuple(name for name, cell in cells.items() if _works(cell)),
        elsewhere={outcome: tuple(names) for outcome, names in elsewhere.items()},
        silent=any(cell.word in {*SILENT, MUST_NOT} for cell in cells.values()),
    )


def _works(cell: FeatureCell) -> bool:
    return cell.word == Behaviour.WORKS
