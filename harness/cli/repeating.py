"""`--repeat N`: what it cannot be combined with, and the line about attempts at the end of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.errors import UsageError
from harness.model import spelled

if TYPE_CHECKING:
    from harness.cli.invocation import Invocation
    from harness.store import StoredRun

#: options that try a row once, and why
_ONCE = {
    "--environment": "an environment may change between two attempts, so different verdicts would not show a flaky "
    "check",
    "--under": "a control shows that one attempt turns to Issue",
}
_FEW = 3


def require_repeatable(repeat: int, *, environment: bool, under: bool) -> None:
    """Reject options that try a row once.

    :raises UsageError: when rows are to be repeated.
    """
    option = "--environment" if environment else "--under" if under else ""
    if repeat > 1 and option:
        raise UsageError(f"found --repeat and {option}, expected one of them", hint=_ONCE[option])


def say_attempts(invocation: Invocation, run: StoredRun) -> None:
    """Say how many rows are flaky, and what the attempts show about the others; nothing about rows tried once."""
    repeated = [result for result in run.answers() if result.repetition]
    counts = [result.repetition for result in repeated if result.repetition]
    flaky = [f"{result.check} on {result.target}" for result in repeated if result.flaky]
    names = f" ({', '.join(flaky[:_FEW])}{', …' if len(flaky) > _FEW else ''})" if flaky else ""
    clean = [found.bound for found in counts if found.ok and not found.issue]
    bound = f"; a row without an Issue has a failure rate {spelled(max(clean))}, with 95 % confidence" if clean else ""
    if repeated:
        tried = sum(found.attempts for found in counts)
        rows = f"{len(repeated)} row{'' if len(repeated) == 1 else 's'}"
        invocation.terminal.say(f"attempts: {tried} of {rows}, {len(flaky)} flaky{names}{bound}")
