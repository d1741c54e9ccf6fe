"""The end of a run, on one screen: the counts on stdout, then where the evidence is, then the Issues.

On a terminal the counts are a table of its width; elsewhere they are keys and values, for scripts.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from shutil import get_terminal_size
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.cli.exit_codes import rows_of
from harness.cli.wrapping import REPRODUCE, shortened, wrapped
from harness.model import Behaviour, Result, Status
from harness.printable import one_line
from harness.report.evidence import elapsed_s
from harness.report.outcomes import WORDS, Count, OutcomeCount, count

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from harness.cli.invocation import Invocation
    from harness.model import PlannedCheck
    from harness.report.evidence import Evidence
    from harness.store import StoredRun

_NARROWEST = 12
#: the recap of eight topologies has no more lines
_SCREEN_LINES = 24
#: the heading of the table, the folder of the evidence, the report, what is left out, and the next prompt
_OTHER_LINES = 5


def print_recap(run: StoredRun) -> None:
    """Print the counts of the rows of one run."""
    _print_counts(rows_of(run), run.results)


def print_evidence_recap(evidence: Evidence) -> None:
    """Print the counts of merged evidence."""
    _print_counts([row.answer for row in evidence.rows], [row.result for row in evidence.rows])


def _print_counts(answers: Iterable[tuple[PlannedCheck, Result]], attempts: Iterable[Result]) -> None:
    """Print the counts of some rows.

    :param attempts: what the rows took; there may be several of each.
    """
    ran: dict[str, list[Result]] = {}
    for result in attempts:
        ran.setdefault(result.target, []).append(result)
    by_target: dict[str, list[tuple[PlannedCheck, Result]]] = {}
    for planned, result in answers:
        by_target.setdefault(planned.target, []).append((planned, result))
    counted = [_Line(target, count(rows), elapsed_s(ran.get(target, ()))) for target, rows in by_target.items()]
    lines = _table(counted, get_terminal_size().columns) if sys.stdout.isatty() else _key_values(counted)
    sys.stdout.writelines(f"{line}\n" for line in lines)
    sys.stdout.flush()


class _Line(Struct, frozen=True):
    """The counts of one topology."""

    target: str
    count: Count
    elapsed_s: float


def _key_values(lines: Sequence[_Line]) -> Iterator[str]:
    """Yield a line for the checks of each topology, and one for what happens to its features and its drivers."""
    width = name_width(line.target for line in lines)
    for line in lines:
        counted, name = line.count, line.target.ljust(width)
        limits = f" ({counted.limits} documented limit{'s' if counted.limits > 1 else ''})" if counted.limits else ""
        apart = [f"{counted.known} known"] if counted.known else []
        apart += [f"{counted.quarantined} quarantined"] if counted.quarantined else []
        known = f" ({', '.join(apart)})" if apart else ""
        flaky = f" flaky={counted.flaky}" if counted.flaky else ""
        yield (
            f"{name} checks:   ok={counted.ok}{limits} issue={counted.issue}{known} na={counted.na} "
            f"not_run={counted.not_run}{flaky}  {line.elapsed_s:.1f}s"
        )
        for kind, found in (("features:", counted.features), ("drivers: ", counted.drivers)):
            if found.observed:
                yield f"{name} {kind} {found}"


class _Column(Struct, frozen=True):
    """A column of the table on a terminal. Those with a lower rank stay on a narrow one."""

    heading: str
    rank: int
    cell: Callable[[_Line], object]


def _works(counted: OutcomeCount) -> str:
    return f"{counted.works}/{counted.observed}" if counted.observed else ""


def _with(behaviour: Behaviour) -> Callable[[_Line], object]:
    return lambda line: getattr(line.count.features, behaviour)


_COLUMNS = (
    _Column("OK", 0, lambda line: line.count.ok),
    _Column("Issue", 0, lambda line: line.count.issue),
    _Column("(known)", 2, lambda line: f"({line.count.known})" if line.count.known else ""),
    _Column("N/A", 3, lambda line: line.count.na),
    _Column("Not run", 1, lambda line: line.count.not_run),
    _Column("features", 4, lambda line: _works(line.count.features)),
    _Column("drivers", 5, lambda line: _works(line.count.drivers)),
    _Column("time", 6, lambda line: f"{line.elapsed_s:.1f}s"),
    *(
        _Column(word.behaviour.value, 7, _with(word.behaviour))
        for word in WORDS
        if word.behaviour is not Behaviour.WORKS
    ),
)


def _table(lines: Sequence[_Line], width: int) -> Iterator[str]:
    """Yield a heading, and one line for each topology: features and drivers as how many of them work."""
    cells = {column: [column.heading, *(str(column.cell(line)) for line in lines)] for column in _COLUMNS}
    widths = {column: 1 + max(map(len, found)) for column, found in cells.items()}
    names = ["", *(line.target for line in lines)]
    longest = max(map(len, names))
    for rank in sorted({column.rank for column in _COLUMNS}, reverse=True):
        if longest + sum(widths.values()) <= width:
            break
        if rank:
            widths = {column: cell for column, cell in widths.items() if column.rank < rank}
    room = max(min(longest, width - sum(widths.values())), 1)
    for number, name in enumerate(names):
        counts = "".join(cells[column][number].rjust(wide) for column, wide in widths.items())
        yield f"{shortened(name, room):<{room}}{counts}".rstrip()


def name_width(names: Iterable[str]) -> int:
    """Return the width of the column of topology names."""
    return max([_NARROWEST, *map(len, names)])


def say_where(invocation: Invocation, folder: Path | None, paths: list[Path]) -> None:
    """Say where the evidence and the report are.

    :param folder: the run folder, if the command made one.
    :param paths: the rendered files.
    """
    if folder:
        invocation.terminal.say(f"evidence: {folder}")
    page = next(path for path in paths if path.suffix == ".html")
    invocation.terminal.say(f"report:   {page} and {len(paths) - 1} more files in {paths[0].parent}/")


class _Group(Struct):
    """Issues of one check, for one reason, on one topology or several."""

    first: Result
    others: list[str] = []

    def __str__(self) -> str:
        known = self.first.known
        apart = self.first.quarantine
        kind = f"Known Issue ({known.link})" if known else f"Quarantined Issue ({apart.link})" if apart else "Issue"
        also = f", and on {', '.join(self.others)}" if self.others else ""
        counts = f" ({self.first.repetition})" if self.first.repetition else ""
        said = f"{kind} {self.first.target} {self.first.check}: {one_line(self.first.reason)}{counts}{also}"
        return f"{said}\n  {REPRODUCE}{one_line(self.first.reproduce)}"


def say_issues(invocation: Invocation, results: Iterable[Result]) -> None:
    """Say every Issue, those that nobody accepted first, with the command that reproduces it.

    The same Issue on several topologies is said once. On a terminal, known Issues that do not fit into one screen with
    the lines before them are only counted.
    """
    results = tuple(results)
    groups = _grouped(results)
    screen = invocation.terminal.screen
    room = max(_SCREEN_LINES, screen[1]) - len({result.target for result in results}) - _OTHER_LINES if screen else 0
    for number, group in enumerate(groups):
        if screen:
            room -= len(list(wrapped(str(group), screen[0])))
            if room < 0 and not group.first.gates:
                rest = sum(1 + len(left.others) for left in groups[number:])
                kind = "known" if all(left.first.known for left in groups[number:]) else "known or quarantined"
                invocation.terminal.say(f"and {rest} more {kind} Issue{'s' if rest > 1 else ''}, in issues.md")
                return
        invocation.terminal.say(str(group))


def _grouped(results: Iterable[Result]) -> list[_Group]:
    """Group Issues that differ in nothing but their topology. Known ones come last."""
    groups: dict[tuple[str, ...], _Group] = {}
    for result in results:
        if result.status is Status.ISSUE:
            entry = result.known or result.quarantine
            link = entry.link if entry else ""
            key = (result.check, link, result.reason)
            if key in groups:
                groups[key].others.append(result.target)
            else:
                groups[key] = _Group(result)
    return sorted(groups.values(), key=lambda group: not group.first.gates)
