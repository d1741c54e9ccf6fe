"""`prove`: show of every check that it can fail."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from harness.cli import options
from harness.cli.evidence import evidence_here
from harness.cli.exit_codes import ExitCode, exit_code, rows_of
from harness.cli.filling import fill
from harness.cli.invocation import Invocation, command
from harness.cli.recap import name_width
from harness.cli.running import run_selection
from harness.cli.selection import print_selection, require_breakable, select_rows
from harness.printable import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.cli.selection import Selection
    from harness.store import StoredRun


@command(
    "prove",
    section="Evidence",
    examples=("harness prove", "harness prove direct transaction --suite redaction"),
)
@options.selection
@options.proving
def prove(
    invocation: Invocation,
    topologies: Sequence[str],
    suites: Sequence[str],
    checks: Sequence[str],
    *,
    dry_run: bool,
    strict: bool,
) -> int:
    """Run every check under each of its controls: each must turn to Issue.

    A control breaks the system under test on purpose. Exits with 1 when a check stays OK under a control, and when a
    break of the audit trail turns other checks than those that watch what it broke.
    """
    settings = invocation.settings
    require_breakable(settings, "prove")
    selection = select_rows(settings, topologies, suites, checks)
    if dry_run:
        print_selection(selection, settings)
        return 0
    run = run_selection(invocation, selection, proving=True)
    fill(evidence_here(settings.of_project), settings)
    _print_counts(selection, run)
    all_proven = _print_unproven(invocation, run)
    code = exit_code(invocation, rows_of(run), [run], strict=strict)
    if code not in {ExitCode.OK, ExitCode.NOT_RUN}:
        return code
    return code if all_proven else ExitCode.ISSUE


def _print_counts(selection: Selection, run: StoredRun) -> None:
    width = name_width(topology.name for topology in selection.topologies)
    for topology in selection.topologies:
        proofs = [proof for proof in run.proofs if proof.topology == topology.name]
        proven = sum(proof.proven for proof in proofs)
        unproven = sum(proof.applicable and not proof.proven for proof in proofs)
        na = len(proofs) - proven - unproven
        sys.stdout.write(f"{topology.name:<{width}} proven={proven} unproven={unproven} na={na}\n")
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
    sys.stdout.write("".join(f"{one_line(invocation.redactor(line))}\n" for line in lines))
    return not lines
