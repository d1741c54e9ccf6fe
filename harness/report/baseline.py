"""The baseline of an audit trail: what its checks found at its last release, in a small file next to the target file.

Only an Issue that the baseline does not have fails a run that is compared with it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Literal

import msgspec
from msgspec import Struct

from harness.errors import ConfigError
from harness.model import Severity, Status
from harness.report.scope import of_the_trail
from harness.report.spans import span_of
from harness.report.topology_rows import titled

if TYPE_CHECKING:
    from pathlib import Path

    from harness.report.evidence import Evidence, Row

#: what follows the name of a target file, without `.toml`
SUFFIX = ".baseline.json"
_LARGEST = 4 << 20


class BaselineRow(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One check in one topology or environment."""

    status: Status
    #: of an Issue: the names of the expectations that did not hold
    broken: tuple[str, ...] = ()


class Baseline(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the checks of an audit target found."""

    schema_version: Literal[1] = 1
    #: the name of the audit target
    audit_target: str
    #: the day of the newest of its rows, YYYY-MM-DD
    date: str
    #: of the harness
    tool_version: str
    #: of the servers, by topology
    versions: dict[str, tuple[str, ...]]
    #: by topology or environment, then by check
    rows: dict[str, dict[str, BaselineRow]]


class Standing(StrEnum):
    """How a row compares with the baseline."""

    NEW = "new Issue"
    CHANGED = "an Issue in another way"
    SAME = "as in the baseline"
    GONE = "no longer an Issue"

    def words(self, number: int) -> str:
        """Return a number of rows with the words for them: `2 new Issues`."""
        plural = {Standing.NEW: "new Issues", Standing.CHANGED: "Issues in another way"}
        singular = {Standing.CHANGED: "Issue in another way"}
        return f"{number} {(singular if number == 1 else plural).get(self, self)}"


class BaselineChange(Struct, frozen=True, kw_only=True):
    """A check that is an Issue now, or was one at the baseline, with the topologies where that is so."""

    standing: Standing
    severity: Severity
    check: str
    topologies: tuple[str, ...]
    before: str
    after: str


class BaselineComparison(Struct, frozen=True, kw_only=True):
    """The rows of a report, compared with a baseline."""

    #: the file or the run
    name: str
    date: str
    #: rows that ran in both
    compared: int
    changes: tuple[BaselineChange, ...]

    @property
    def excused(self) -> frozenset[tuple[str, str]]:
        """The Issues that do not fail a run, because the baseline has them: target and check."""
        return frozenset(
            (name, change.check)
            for change in self.changes
            if change.standing is Standing.SAME
            for name in change.topologies
        )

    @property
    def summary(self) -> str:
        """The number of rows of each kind, in one line without a full stop."""
        counts = {
            standing: sum(len(change.topologies) for change in self.changes if change.standing is standing)
            for standing in Standing
        }
        words = [standing.words(number) for standing, number in counts.items() if number]
        rows = "row" if self.compared == 1 else "rows"
        return f"{self.compared} {rows} ran in both: {', '.join(words) or 'no Issue in either'}"


def baseline_of(evidence: Evidence, about: str) -> Baseline:
    """Return the baseline that evidence makes: the rows that ran, or do not apply.

    :param about: the name of the audit target.
    """
    rows: dict[str, dict[str, BaselineRow]] = {}
    for row in of_the_trail(evidence):
        if row.status is not Status.NOT_RUN:
            rows.setdefault(row.planned.target, {})[row.planned.check] = BaselineRow(
                status=row.status, broken=_broken(row)
            )
    newest = evidence.shown[-1] if evidence.shown else None
    return Baseline(
        audit_target=about,
        date=span_of(of_the_trail(evidence))[1][:10],
        tool_version=newest.provenance.tool_version if newest else "",
        versions={
            name: tuple(map(titled, found.services)) for name, found in evidence.topologies.items() if name in rows
        },
        rows=rows,
    )


def read_baseline(path: Path, about: str) -> Baseline:
    """Read a baseline.

    :param about: the name of the audit target that it has to be about.
    :raises ConfigError: when the file is missing, is none, or is about another audit target.
    """
    if path.exists() and not path.is_file():  # a FIFO would block for ever
        raise ConfigError("the baseline is not a regular file", where=str(path))
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST + 1)
    except OSError as error:
        raise ConfigError(f"the baseline cannot be read: {error.strerror or error}", where=str(path)) from None
    if len(text) > _LARGEST:
        raise ConfigError(f"the baseline is larger than {_LARGEST >> 20} MiB", where=str(path))
    try:
        found = msgspec.json.decode(text, type=Baseline)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"not a baseline: {str(error)[:200]}",
            where=str(path),
            hint="harness report --save-baseline FILE writes one",
        ) from None
    if found.audit_target != about:
        raise ConfigError(
            f"the baseline is about the audit target {found.audit_target!r}, and {about!r} is judged", where=str(path)
        )
    return found


def encoded_baseline(baseline: Baseline) -> str:
    """Return a baseline as the text of its file: each check on a line, so that a diff of two releases is readable."""
    fields = msgspec.to_builtins(baseline)
    rows = ",\n".join(
        f"  {_json(name)}: {{\n"
        + ",\n".join(f"   {_json(check)}: {_json(row)}" for check, row in sorted(of.items()))
        + "\n  }"
        for name, of in sorted(fields.pop("rows").items())
    )
    head = "".join(f" {_json(name)}: {_json(value)},\n" for name, value in fields.items())
    return f'{{\n{head} "rows": {{\n{rows}\n }}\n}}\n'


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def compare_with(baseline: Baseline, evidence: Evidence, name: str) -> BaselineComparison:
    """Compare evidence with a baseline. A row that did not run now is neither gone nor new.

    :param name: the file or the run of the baseline.
    """
    compared = 0
    found: dict[BaselineChange, list[str]] = {}
    for row in of_the_trail(evidence):
        before = baseline.rows.get(row.planned.target, {}).get(row.planned.check)
        if row.status is Status.NOT_RUN:
            continue
        compared += before is not None
        if standing := _standing(before, row):
            change = BaselineChange(
                standing=standing,
                severity=row.result.severity or row.planned.severity,
                check=row.planned.check,
                topologies=(),
                before=_shown(before.status, "; ".join(before.broken)) if before else "not verified",
                after=_shown(row.status, row.result.reason),
            )
            found.setdefault(change, []).append(row.planned.target)
    order = list(Standing)
    changes = (msgspec.structs.replace(change, topologies=tuple(names)) for change, names in found.items())
    return BaselineComparison(
        name=name,
        date=baseline.date,
        compared=compared,
        changes=tuple(
            sorted(changes, key=lambda change: (order.index(change.standing), change.severity, change.check))
        ),
    )


def _standing(before: BaselineRow | None, row: Row) -> Standing | None:
    if row.status is not Status.ISSUE:
        return Standing.GONE if before is not None and before.status is Status.ISSUE else None
    if before is None or before.status is not Status.ISSUE:
        return Standing.NEW if row.result.gates else None
    # with fewer broken expectations than then, it is no other Issue; what is accepted now is shown as such
    same = set(_broken(row)) <= set(before.broken) or not row.result.gates
    return Standing.SAME if same else Standing.CHANGED


def _shown(status: Status, why: str) -> str:
    return f"{status}: {why}" if why else str(status)


def _broken(row: Row) -> tuple[str, ...]:
    """Return what an Issue broke, without values, which may differ from run to run."""
    if row.status is not Status.ISSUE:
        return ()
    broken = [expectation.name for expectation in row.result.expectations if expectation.broken]
    return tuple(dict.fromkeys(broken)) or (row.result.reason.partition(":")[0],)
