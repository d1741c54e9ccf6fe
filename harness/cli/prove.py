"""`prove`: show of every check that it can fail."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from harness.checks.observing import NOT_TRIED, TRAIL_SUITES
from harness.checks.registry import TRANSACTION_BLOCKS
from harness.cli import options
from harness.cli.evidence import evidence_here
from harness.cli.exit_codes import ExitCode, exit_code, rows_of
from harness.cli.filling import fill
from harness.cli.invocation import Invocation, command
from harness.cli.recap import name_width
from harness.cli.running import run_selection
from harness.cli.selection import print_selection, select_rows
from harness.errors import UsageError
from harness.model import MutationState
from harness.printable import one_line
from harness.report.outcomes import is_interrupted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.cli.selection import Selection
    from harness.cli.settings import Settings
    from harness.store import StoredRun


@command(
    "prove",
    section="Evidence",
    examples=(
        "harness prove",
        "harness prove direct transaction --suite redaction",
        "harness prove transaction --audit-target my-trail.toml",
    ),
)
@options.selection
@options.running
def prove(
    invocation: Invocation,
    topologies: Sequence[str],
    suites: Sequence[str],
    checks: Sequence[str],
    *,
    dry_run: bool,
    strict: bool,
) -> int:
    """Run every check under each of its controls, and the checks of the trail on mutated rows: each must turn.

    A control breaks the system under test on purpose. A mutation changes the rows that checks read from the audit
    trail, as a faulty trail would, and works for every audit target. Exits with 1 when a check stays OK under a
    control, when a break of the audit trail turns other checks than those that watch what it broke, and when no check
    notices a mutation.
    """
    settings = invocation.settings
    selection = _selected(settings, topologies, suites, checks)
    if dry_run:
        print_selection(selection, settings)
        return 0
    run = run_selection(invocation, selection, proving=True)
    fill(evidence_here(settings.of_project), settings)
    _print_counts(selection, run, of_reference=settings.target.is_reference)
    all_proven = _print_unproven(invocation, run)
    code = exit_code(invocation, rows_of(run), [run], strict=strict)
    if code not in {ExitCode.OK, ExitCode.NOT_RUN}:
        return code
    if not all_proven:
        return ExitCode.ISSUE
    return ExitCode.NOT_RUN if any(proof.reason.startswith(NOT_TRIED) for proof in run.observed_proofs) else code


def _selected(settings: Settings, topologies: Sequence[str], suites: Sequence[str], checks: Sequence[str]) -> Selection:
    """Return what to prove. Of another trail than the reference layer, the checks that read its rows.

    :raises UsageError: when only some of these are named, or no mutation could be tried.
    """
    if settings.target.is_reference:
        return select_rows(settings, topologies, suites, checks)
    if suites or checks:
        raise UsageError(
            "controls break the reference layer only, and mutations of another audit trail are tried with all of its "
            "checks",
            hint="leave --suite and --check out",
        )
    of_trail = [suite for suite in settings.catalogue.suites() if suite in TRAIL_SUITES]
    selection = select_rows(settings, topologies, of_trail, ())
    if not any(map(TRANSACTION_BLOCKS.given, selection.topologies)):
        names = ", ".join(topology.name for topology in selection.topologies)
        raise UsageError(
            f"{names}: {TRANSACTION_BLOCKS.lacking}, so no mutation is tried there", hint="name transaction or direct"
        )
    return selection


def _print_counts(selection: Selection, run: StoredRun, *, of_reference: bool) -> None:
    width = name_width(topology.name for topology in selection.topologies)
    for topology in selection.topologies:
        proofs = [proof for proof in run.proofs if proof.topology == topology.name]
        observed = [proof for proof in run.observed_proofs if proof.topology == topology.name]
        if of_reference:
            proven = sum(proof.proven for proof in proofs)
            unproven = sum(proof.applicable and not proof.proven for proof in proofs)
            na = len(proofs) - proven - unproven
            left = sum(is_interrupted(result) for row, result in rows_of(run) if row.target == topology.name)
            not_run = f" not_run={left} ({left} interrupted)" if left else ""
            sys.stdout.write(f"{topology.name:<{width}} proven={proven} unproven={unproven} na={na}{not_run}\n")
        if observed:
            states = [proof.state for proof in observed]
            counts = " ".join(f"{state.value.replace(' ', '-')}={states.count(state)}" for state in MutationState)
            sys.stdout.write(f"{topology.name:<{width}} mutated rows: {counts}\n")
        elif not of_reference:
            reason = "" if TRANSACTION_BLOCKS.given(topology) else f": {TRANSACTION_BLOCKS.lacking}"
            sys.stdout.write(f"{topology.name:<{width}} mutated rows: none tried{reason}\n")
    if run.trail_proofs:
        exact = sum(proof.exact for proof in run.trail_proofs)
        sys.stdout.write(f"breaks of the trail: {exact} of {len(run.trail_proofs)} turned exactly their checks\n")


def _print_unproven(invocation: Invocation, run: StoredRun) -> bool:
    """Print what was not proven, and return whether everything was."""
    lines = [
        f"UNPROVEN {proof.topology}: {proof.check} under {proof.control}, at {proof.at!r}: {proof.reason}"
        for proof in run.proofs
        if proof.applicable and not proof.proven
    ]
    for proof in run.trail_proofs:
        for checks, mistake in (
            (proof.missed, "stayed OK, expected Issue"),
            (proof.unexpected, "turned to Issue, expected no change"),
        ):
            if checks:
                lines.append(f"UNPROVEN {proof.topology}: under the break {proof.name} {', '.join(checks)} {mistake}")
    survivors = [proof for proof in run.observed_proofs if proof.state is MutationState.SURVIVED]
    lines += [
        f"SURVIVED {proof.topology}: {proof.name}: a trail that {proof.what} is not noticed ({proof.reason})"
        for proof in survivors
    ]
    all_proven = not lines
    lines += [
        f"NEVER MET {proof.topology}: {proof.name}: a trail that {proof.what} may be noticed or not ({proof.reason})"
        for proof in run.observed_proofs
        if proof.state is MutationState.NEVER_MET
    ]
    sys.stdout.write("".join(f"{one_line(invocation.redactor(line))}\n" for line in lines))
    return all_proven
