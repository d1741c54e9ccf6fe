"""The end of a run, on one screen: the counts on stdout, then where the evidence is, then the Issues.

On a terminal the counts are a table, or lists where it is too narrow for a table; elsewhere they are keys and values,
for scripts. The count of a status is never left out.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from shutil import get_terminal_size
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.cli.exit_codes import rows_of
from harness.cli.wrapping import REPRODUCE, items_in_lines, wrapped
from harness.model import Behaviour, Status
from harness.printable import one_line
from harness.report.evidence import Row
from harness.report.findings import findings
from harness.report.issue_groups import accepted_kinds, issue_groups
from harness.report.job_limits import job_limits
from harness.report.load_rows import writes
from harness.report.outcomes import WORDS, Count, OutcomeCount, count, is_interrupted, is_shown
from harness.report.spans import elapsed_by_run, elapsed_s

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from harness.cli.invocation import Invocation
    from harness.model import Result
    from harness.report.evidence import Evidence
    from harness.report.issue_groups import Answer, IssueGroup
    from harness.store import StoredRun

_NARROWEST = 12
#: the recap of eight topologies has no more lines
_SCREEN_LINES = 24
#: the heading of the table, the folder of the evidence, the report, what is left out, and the next prompt
_OTHER_LINES = 5
#: rows out of scope that a line names; more are counted
_MOST_NAMES = 2
#: engines with a variant whose documented limits are named
_MOST_LIMITS = 6


def print_recap(run: StoredRun) -> None:
    """Print the counts of the rows of one run."""
    of_target: dict[str, list[Result]] = {}
    for result in run.results:  # all attempts, of which there may be several of each row
        of_target.setdefault(result.target, []).append(result)
    times = {target: _Time(elapsed_s(results)) for target, results in of_target.items()}
    _print_counts(rows_of(run), run.results, times)


def print_evidence_recap(evidence: Evidence) -> None:
    """Print the counts of merged evidence."""
    times = {}
    for name in evidence.names():
        of_runs = elapsed_by_run(evidence.of(name))
        times[name] = _Time(sum(of_runs.values()), runs=len(of_runs))
    _print_counts([row.answer for row in evidence.rows], [row.result for row in evidence.rows], times)


class _Time(Struct, frozen=True):
    """How long the rows of one topology took, from the first start to the last end in each run."""

    seconds: float = 0.0
    runs: int = 1


def _print_counts(answers: Sequence[Answer], attempts: Sequence[Result], times: dict[str, _Time]) -> None:
    """Print the counts of some rows.

    :param attempts: of the rows; there may be several of each.
    :param times: by topology; one without a result has none.
    """
    planned = {(row.target, row.check): row for row, _ in answers}
    by_target: dict[str, list[Answer]] = {}
    for answer in answers:
        by_target.setdefault(answer[0].target, []).append(answer)
    counted = [
        _Line(
            target,
            count(rows),
            times.get(target, _Time()),
            tuple(row.check for row, found in rows if not is_shown(row, found)),
        )
        for target, rows in by_target.items()
    ]
    rows = [
        Row(planned=planned[result.target, result.check], result=result, run_id="")
        for result in attempts
        if (result.target, result.check) in planned
    ]
    if sys.stdout.isatty():
        width = get_terminal_size().columns
        lines = (*_for_terminal(counted, width), *_writes_in_words(rows, width))
    else:
        lines = (*_key_values(counted), *_writes_as_keys(rows, name_width(line.target for line in counted)))
    sys.stdout.writelines(f"{line}\n" for line in lines)
    sys.stdout.flush()


class _Line(Struct, frozen=True):
    """The counts of one topology."""

    target: str
    count: Count
    time: _Time
    #: the checks that are Not run by design
    out_of_scope: tuple[str, ...] = ()


def _key_values(lines: Sequence[_Line]) -> Iterator[str]:
    """Yield a line for the checks of each topology, and one for what happens to its features and its drivers."""
    width = name_width(line.target for line in lines)
    for line in lines:
        counted, name = line.count, line.target.ljust(width)
        limits = f" ({counted.limits} documented limit{'s' if counted.limits > 1 else ''})" if counted.limits else ""
        apart = f" {said}" if (said := _apart(line)) else ""
        left = f" {said}" if (said := _interrupted(line)) else ""
        flaky = f" flaky={counted.flaky}" if counted.flaky else ""
        runs = f" runs={line.time.runs}" if line.time.runs > 1 else ""
        yield (
            f"{name} checks:   ok={counted.ok}{limits} issue={counted.issue}{apart} na={counted.na} "
            f"not_run={counted.not_run}{left}{_beyond(line)}{flaky}  elapsed={line.time.seconds:.1f}s{runs}"
        )
        for kind, found in (("features:", counted.features), ("drivers: ", counted.drivers)):
            if found.observed:
                yield f"{name} {kind} {found}"


def _beyond(line: _Line) -> str:
    """Return the number of rows that nobody owes, and the names of a few: the progress showed each of them."""
    names = line.out_of_scope
    named = f" ({', '.join(names)})" if len(names) <= _MOST_NAMES else ""
    return f" out_of_scope={len(names)}{named}" if names else ""


def _writes_as_keys(rows: Sequence[Row], width: int) -> Iterator[str]:
    """Yield a line for the writes of each topology under faults, and one for those under load."""
    for found in writes(rows):
        yield (
            f"{found.target.ljust(width)} {f'{found.under}:':<9} acknowledged={found.acknowledged} "
            f"lost_in_table={found.lost_in_table} lost_in_trail={found.lost_in_trail} failed={found.failed} "
            f"unknown={found.unknown} ({found.there} there)"
        )


def _writes_in_words(rows: Sequence[Row], width: int) -> Iterator[str]:
    for found in writes(rows):
        yield from wrapped(
            f"{found.target}, writes under {found.under}: {found.acknowledged} acknowledged, "
            f"{found.lost_in_table} of them missing in the table and {found.lost_in_trail} in the trail; "
            f"{found.failed} failed; {found.unknown} unknown, {found.there} of them there",
            width,
        )


class _Column(Struct, frozen=True):
    """A column of the table on a terminal.

    :ivar heading: "" for a remark on the column before it.
    :ivar spare: whether the table does without it on a narrow terminal; the higher, the sooner. 0: never.
    """

    heading: str
    cell: Callable[[_Line], object]
    spare: int = 0


def _apart(line: _Line) -> str:
    """Return how many of the Issues do not count, in words."""
    counted = line.count
    numbers = ((counted.known, "known"), (counted.quarantined, "quarantined"))
    said = ", ".join(f"{number} {word}" for number, word in numbers if number)
    return f"({said})" if said else ""


def _interrupted(line: _Line) -> str:
    """Return how many rows are Not run because the run was interrupted, in words; "" for none."""
    return f"({line.count.interrupted} interrupted)" if line.count.interrupted else ""


def _works(counted: OutcomeCount) -> str:
    return f"{counted.works}/{counted.observed}" if counted.observed else ""


def _with(behaviour: Behaviour) -> Callable[[_Line], object]:
    return lambda line: getattr(line.count.features, behaviour) or ""


_COLUMNS = (
    _Column("OK", lambda line: line.count.ok),
    _Column("Issue", lambda line: line.count.issue),
    _Column("", _apart),
    _Column("N/A", lambda line: line.count.na),
    _Column("Not run", lambda line: line.count.not_run),
    _Column("", _interrupted),
    _Column("out of scope", lambda line: len(line.out_of_scope) or "", spare=1),
    _Column("flaky", lambda line: line.count.flaky or ""),
    _Column("features", lambda line: _works(line.count.features)),
    _Column("drivers", lambda line: _works(line.count.drivers)),
    _Column("elapsed", lambda line: f"{line.time.seconds:.1f}s", spare=1),
    _Column("", lambda line: f"in {line.time.runs} runs" if line.time.runs > 1 else "", spare=1),
    *(
        _Column(word.behaviour.value, _with(word.behaviour), spare=2)
        for word in WORDS
        if word.behaviour is not Behaviour.WORKS
    ),
)


def _for_terminal(lines: Sequence[_Line], width: int) -> Iterator[str]:
    """Yield the table with the columns that fit; where a status does not, yield lists of all counts."""
    if not lines:
        return
    names = max(len(line.target) for line in lines)
    for spare in sorted({column.spare for column in _COLUMNS}, reverse=True):
        columns = [column for column in _COLUMNS if column.spare <= spare and _is_used(column, lines)]
        cells = [[column.heading, *(str(column.cell(line)) for line in lines)] for column in columns]
        widths = [1 + max(map(len, texts)) for texts in cells]
        if names + sum(widths) <= width:
            for place, name in enumerate(["", *(line.target for line in lines)]):
                counts = "".join(texts[place].rjust(wide) for texts, wide in zip(cells, widths, strict=True))
                yield f"{name:<{names}}{counts}".rstrip()
            return
    for line in lines:
        yield line.target
        yield from items_in_lines(_items(line), width)


def _is_used(column: _Column, lines: Sequence[_Line]) -> bool:
    """Return whether a column has a cell. A status always has: nothing but its count says that it is 0."""
    return any(column.cell(line) != "" for line in lines)


def _items(line: _Line) -> list[str]:
    """Return the counts of a topology, each with its heading."""
    items: list[str] = []
    for column in _COLUMNS:
        if (cell := str(column.cell(line))) and column.heading:
            items.append(f"{column.heading} {cell}")
        elif cell:
            items[-1] += f" {cell}"
    return items


def name_width(names: Iterable[str]) -> int:
    """Return the width of the column of topology names."""
    return max([_NARROWEST, *map(len, names)])


def say_interrupted(invocation: Invocation, evidence: Evidence, runs: Sequence[StoredRun]) -> None:
    """Say how many rows an interruption left in some runs, and for how many of them older answers are counted."""
    left = {(row.target, row.check) for run in runs for row, result in rows_of(run) if is_interrupted(result)}
    if not left:
        return
    answered = (row.planned for row in evidence.rows if row.status is not Status.NOT_RUN)
    older = sum((planned.target, planned.check) in left for planned in answered)
    said = f"the run was interrupted: {len(left)} of its rows are Not run"
    invocation.terminal.say(f"{said}; for {older} of them, the report has the answers of older runs" if older else said)


def say_where(invocation: Invocation, folder: Path | None, paths: list[Path]) -> None:
    """Say where the evidence and the report are.

    :param folder: the run folder, if the command made one.
    :param paths: the rendered files.
    """
    if folder:
        invocation.terminal.say(f"evidence: {folder}")
    page = next(path for path in paths if path.suffix == ".html")
    invocation.terminal.say(f"report:   {page} and {len(paths) - 1} more files in {paths[0].parent}/")


def say_causes(invocation: Invocation, answers: Iterable[Answer]) -> None:
    """Say what the Issues of an audit trail of somebody else's have in common, and what to change."""
    for cause in findings(answers, invocation.settings.target.name):
        checks = ", ".join(row.check for row in cause.rows)
        invocation.terminal.say(one_line(f"What to change: {cause.title} ({checks}). {cause.advice}"))


def say_issues(invocation: Invocation, answers: Iterable[Answer]) -> None:
    """Say the Issues in groups, those that nobody accepted first, each with a command that reproduces it.

    On a terminal, Issues that are known or in quarantine, and do not fit into one screen with the lines before them,
    are only counted.
    """
    answers = tuple(answers)
    groups = issue_groups(answers)
    screen = invocation.terminal.screen
    room = max(_SCREEN_LINES, screen[1]) - len({row.target for row, _ in answers}) - _OTHER_LINES if screen else 0
    for place, group in enumerate(groups):
        text = _text(group)
        if screen:
            room -= len(list(wrapped(text, screen[0])))
            if room < 0 and group.accepted:
                rest = sum(left.number for left in groups[place:])
                kinds = accepted_kinds(groups[place:])
                invocation.terminal.say(f"and {rest} more {kinds} Issue{'s' if rest > 1 else ''}, in issues.md")
                return
        invocation.terminal.say(text)


def say_limits(invocation: Invocation, answers: Iterable[Answer]) -> None:
    """Say the documented limits of job engines, one line for each engine and variant; of many, the first ones."""
    limits = job_limits(answers)
    for text in limits[:_MOST_LIMITS]:
        invocation.terminal.say(f"Documented limit of {one_line(text)}")
    if (more := len(limits) - _MOST_LIMITS) > 0:
        invocation.terminal.say(f"and documented limits of {more} more, in job-engines.md")


def _text(group: IssueGroup) -> str:
    kind = f"{group.accepted.capitalize()} Issue ({group.link})" if group.accepted else "Issue"
    said = f"{kind} {group.severity} {group.where}: {one_line(group.found)}"
    return f"{said}\n  {REPRODUCE}{one_line(group.command)}"
