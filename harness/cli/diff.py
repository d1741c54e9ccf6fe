"""`diff`: what changed between two runs. Starts nothing and writes no file."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click
import msgspec

from harness.cli import completion, options
from harness.cli.exit_codes import ExitCode
from harness.cli.invocation import Invocation, command
from harness.cli.run_evidence import ACCEPTED, LATEST, evidence_of
from harness.errors import UsageError
from harness.printable import one_line
from harness.report.change_columns import checks_of, seconds
from harness.report.changes import Changes, Kind, compare
from harness.report.render import changes_in_markdown, scrubbed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from harness.report.changes import Change, OneSided

#: the most lines of a group; new Issues get more
_MOST, _MOST_ISSUES = 5, 12


@command(
    "diff",
    section="Evidence",
    examples=(
        "harness diff previous",
        "harness diff 20260131T120000Z-1a2b3c4d latest",
        "harness diff 1a2b3c4d",
        "harness diff main-job/runs runs --markdown",
        "harness diff 1a2b3c4d latest --json",
    ),
    exit_codes=(
        ("0", "no new Issue: none that is neither known nor was there before"),
        ("1", "at least one new Issue"),
        ("2", "invalid usage, such as a run that does not exist, or a run and itself"),
        ("3", "no row ran in both, or a run was edited, so nothing follows"),
    ),
)
@click.argument(
    "before",
    metavar="RUN",
    shell_complete=completion.run_names,
    help=f"the older evidence: {ACCEPTED}, such as the reports folder of another machine",
)
@click.argument(
    "after",
    metavar="[RUN]",
    required=False,
    default=LATEST,
    shell_complete=completion.run_names,
    help="the newer evidence (default: latest)",
)
@options.option("--markdown", is_flag=True, section="Output", help="print all changes as Markdown")
@options.option("--json", "as_json", is_flag=True, section="Output", help="print all changes as JSON")
@options.reading
def diff(invocation: Invocation, before: str, after: str, *, markdown: bool, as_json: bool) -> int:
    """Print what changed between two runs, and the likely cause.

    Rows that turned, features that behave differently, durations that doubled, and versions and settings that moved.
    A cause is named if only one thing differs that the runs recorded. `previous` is the newest earlier run that ran a
    row of the latest one.
    """
    if markdown and as_json:
        raise UsageError("found --markdown and --json, expected one of them")
    settings = invocation.settings
    found = scrubbed(compare(evidence_of(settings, before), evidence_of(settings, after), (before, after)))
    if found.same and not found.compared and not found.edited:
        runs = ", ".join(found.after.runs)
        raise UsageError(
            f"{before} and {after} are the same evidence: run {runs}", hint="harness diff previous compares two runs"
        )
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(found), indent=1).decode() + "\n")
    elif markdown:
        sys.stdout.write(changes_in_markdown(found))
    else:
        sys.stdout.writelines(f"{line}\n" for line in lines_of(found))
    for side in (found.before, found.after):
        for note in side.notes:
            invocation.terminal.say(one_line(f"note: {side.name}: {note}"))
    return exit_code_of(found)


def exit_code_of(found: Changes) -> ExitCode:
    """Return the exit code of a comparison: 1 only for new Issues, and 3 where nothing follows."""
    if found.edited:
        return ExitCode.NOTHING_VERIFIED
    if found.new_issues:
        return ExitCode.ISSUE
    return ExitCode.NOTHING_VERIFIED if found.void else ExitCode.OK


def lines_of(found: Changes) -> Iterator[str]:
    """Yield the lines for a terminal: one screen, grouped over topologies. Line breaks of the evidence are folded."""
    return map(one_line, _lines(found))


def _lines(found: Changes) -> Iterator[str]:
    for side in (found.before, found.after):
        yield f"{side.name}: {side.description}"
    for sentence in found.edited:
        yield f"edited: {sentence}"
    yield found.summary
    if found.differences:
        differing = [f"{difference.text}  [{', '.join(difference.targets)}]" for difference in found.differences]
        yield from _group("what differs", differing, _MOST)
    causes = [change.cause for change in found.changes if change.cause]
    shared = causes[0] if len(causes) > 1 and len(set(causes)) == 1 else ""
    if shared:
        yield f"cause of all changes: {shared}"
    for kind in Kind:
        lines = [_line(change, with_cause=not shared) for change in found.of(kind)]
        yield from _group(kind, lines, _MOST_ISSUES if kind is Kind.NEW_ISSUE else _MOST)
    yield from _group(
        "durations",
        [
            f"{duration.check or 'start of the topology'}: {seconds(duration.before_ms)} → "
            f"{seconds(duration.after_ms)}  [{duration.target}]"
            for duration in found.durations
        ],
        _MOST,
    )
    yield from _group("only before", map(_one_sided, found.only_before), _MOST)
    yield from _group("only after", map(_one_sided, found.only_after), _MOST)


def _group(heading: str, lines: Iterable[str], most: int) -> Iterator[str]:
    lines = list(lines)
    if lines:
        yield from ("", heading)
    yield from (f"  {line}" for line in lines[:most])
    if len(lines) > most:
        yield f"  and {len(lines) - most} more; --markdown prints all"


def _line(change: Change, *, with_cause: bool) -> str:
    meaning = ": ".join(filter(None, (change.direction, change.reason)))
    parts = [
        f"{change.severity} {change.check}: {change.before or 'absent'} → {change.after}",
        meaning,
        f"cause: {change.cause}" if with_cause and change.cause else "",
    ]
    return f"{'; '.join(filter(None, parts))}  [{', '.join(change.targets)}]"


def _one_sided(rows: OneSided) -> str:
    return f"{', '.join(rows.targets)}: {checks_of(rows)}"
