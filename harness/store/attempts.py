"""The answer of a planned row, from its attempts. The rule is in `docs/evidence.md`.

An Issue in any attempt is the answer. OK needs every planned attempt to be OK, and N/A every one to be N/A. Everything
else is Not run: some attempts say nothing, so the row was not exercised as often as planned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from harness.model import Repetition, Result, Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from harness.model import PlannedCheck


def answer(row: PlannedCheck, attempts: Sequence[Result], missing: str) -> Result:
    """Return the one result of a planned row.

    Of several Issues it is the most severe, then the first; of OK attempts the last. The result has its number and the
    counts of all attempts.

    :param attempts: those that were stored, in any order, each with a number of its own.
    :param missing: why a planned attempt has no result.
    """
    if row.attempts == 1:
        return attempts[0] if attempts else _not_run(row, missing)
    counts = counted(row, attempts)
    return replace(_telling(row, attempts, counts, missing), repetition=counts)


def counted(row: PlannedCheck, attempts: Iterable[Result]) -> Repetition:
    """Count the attempts of a planned row; those without a result are Not run."""
    statuses = [result.status for result in attempts]
    ok, issue, na = (statuses.count(status) for status in (Status.OK, Status.ISSUE, Status.NA))
    return Repetition(ok=ok, issue=issue, na=na, not_run=row.attempts - ok - issue - na)


def _telling(row: PlannedCheck, attempts: Sequence[Result], counts: Repetition, missing: str) -> Result:
    attempts = sorted(attempts, key=lambda result: result.attempt)
    if issues := [result for result in attempts if result.status is Status.ISSUE]:
        return min(issues, key=lambda result: result.severity or row.severity)
    if counts.ok == row.attempts:
        return attempts[-1]
    if counts.na == row.attempts:
        return attempts[0]
    found = next((result for result in attempts if result.status is Status.NOT_RUN), None) or _not_run(row, missing)
    if not (counts.ok or counts.na):
        return found
    if not counts.not_run:  # N/A and OK
        found = _not_run(row, next(result.reason for result in attempts if result.status is Status.NA))
    shown = ((counts.not_run, Status.NOT_RUN), (counts.na, Status.NA), (counts.ok, Status.OK))
    numbers = ", ".join(f"{number} {status}" for number, status in shown if number)
    return replace(found, reason=f"of {row.attempts} attempts {numbers}: {found.reason}")


def _not_run(row: PlannedCheck, reason: str) -> Result:
    return Result(target=row.target, check=row.check, status=Status.NOT_RUN, reason=reason, reproduce=row.reproduce)
