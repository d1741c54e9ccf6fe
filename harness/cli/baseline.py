"""The baseline that a command compares an audit trail with: a file, a run, or the file next to the target file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli.run_evidence import evidence_of
from harness.errors import HarnessError, UsageError
from harness.printable import one_line
from harness.report.baseline import (
    SUFFIX,
    Baseline,
    Standing,
    baseline_of,
    compare_with,
    encoded_baseline,
    read_baseline,
)
from harness.store.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from harness.cli.invocation import Invocation
    from harness.cli.settings import Settings
    from harness.model import PlannedCheck, Result
    from harness.report.baseline import BaselineComparison
    from harness.report.evidence import Evidence


class NamedBaseline:
    """A baseline, and what the user calls it."""

    def __init__(self, name: str, baseline: Baseline) -> None:
        self._name = name
        self._baseline = baseline

    def compared_with(self, evidence: Evidence) -> BaselineComparison:
        """Return how evidence differs from it."""
        return compare_with(self._baseline, evidence, self._name)


def find_baseline(settings: Settings, named: str | None) -> NamedBaseline | None:
    """Return the baseline to compare with; None without one. Nothing has run yet, so a wrong name is found at once.

    :param named: a file, or evidence as `diff` names it; None for the file next to the target file, if there is one.
    :raises ConfigError: for a file that is not a baseline of this audit target.
    :raises UsageError: for a name that leads nowhere.
    """
    about = settings.target.name
    if named is None:
        adjacent = Path(settings.target.where).with_name(f"{about}{SUFFIX}")
        return NamedBaseline(str(adjacent), read_baseline(adjacent, about)) if adjacent.is_file() else None
    if named.endswith(".json"):
        return NamedBaseline(named, read_baseline(Path(named), about))
    evidence = evidence_of(settings, named)
    if others := {record.target_name for record in evidence.shown} - {about}:
        raise UsageError(f"--baseline: {named} is about {', '.join(sorted(others))}, and {about} is judged")
    return NamedBaseline(named, baseline_of(evidence, about))


def save_baseline(invocation: Invocation, evidence: Evidence, name: str) -> None:
    """Write the baseline that evidence makes.

    :raises HarnessError: when nothing has run, or the file cannot be written.
    """
    about = invocation.settings.target.name
    baseline = baseline_of(evidence, about)
    if not baseline.rows:
        raise HarnessError(f"no check of {about} has run, so there is no baseline", where=name)
    write_atomically(Path(name), encoded_baseline(baseline), instead="another file")
    number = sum(map(len, baseline.rows.values()))
    invocation.terminal.say(f"baseline: {name}, {number} rows of {', '.join(baseline.rows)}")


def failing(
    found: BaselineComparison | None, answers: Iterable[tuple[PlannedCheck, Result]]
) -> frozenset[tuple[str, str]] | None:
    """Return the Issues that fail a command: target and check; None for all of them, without a baseline."""
    if found is None:
        return None
    issues = frozenset((result.target, result.check) for _, result in answers if result.gates)
    return issues - found.excused


def say_baseline(invocation: Invocation, found: BaselineComparison) -> None:
    """Say what changed since the baseline."""
    for line in _lines(found):
        invocation.terminal.say(one_line(line))


def _lines(found: BaselineComparison) -> Iterator[str]:
    yield f"since the baseline {found.name} of {found.date}: {found.summary}"
    for change in found.changes:
        if change.standing is not Standing.SAME:
            yield (
                f"{change.standing}: {change.severity} {change.check} on {', '.join(change.topologies)}: "
                f"{change.before} → {change.after}"
            )
