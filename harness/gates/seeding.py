"""Rows about declared checks: each passes in a copy of the repository, and fails there with its seed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from harness.errors import HarnessError
from harness.gates.rows import GateRow, Place, issue, not_run
from harness.gates.stand_ins import stand_in
from harness.job_engines.scratch import scratch_folder
from harness.model import Status

if TYPE_CHECKING:
    from pathlib import Path

    from harness.gates.copies import Copies, Ran
    from harness.gates.declaration import Seed, SeededCheck
    from harness.gates.tree import Tree

_DECLARE = 'declare one: [[gates.checks]] name, run and seed = { file = "…", text = "…" }'


def seeded_rows(tree: Tree, declared: tuple[SeededCheck, ...], copies: Copies | None) -> list[GateRow]:
    """Return one row for each declared check; one row that says so when none is declared.

    :param copies: where to run the commands; None to run nothing.
    """
    if not declared:
        return [not_run("seeded", "no check with a seeded failure is declared", _DECLARE)]
    return [_row(tree, check, copies) for check in declared]


def _row(tree: Tree, check: SeededCheck, copies: Copies | None) -> GateRow:
    gate = f"seeded.{check.name}"
    command = " ".join(check.run)
    if copies is None:
        return not_run(gate, f"`{command}` runs only with --run", "add --run if you trust the repository")
    try:
        with copies.copy() as folder:
            return _in_copy(tree, check, copies, folder)
    except (HarnessError, OSError) as error:
        return not_run(gate, f"the repository cannot be copied: {error}", "free some space, or run it elsewhere")


def _in_copy(  # noqa: PLR0911 -- one for each outcome
    tree: Tree, check: SeededCheck, copies: Copies, folder: Path
) -> GateRow:
    gate, command = f"seeded.{check.name}", " ".join(check.run)
    clean = copies.run(check.run, folder, check.deadline_s)
    missing = f"; not in the copy: {copies.skipped}" if copies.skipped else ""
    if clean.cannot_run:
        return not_run(gate, f"`{command}`: {clean.cannot_run}{missing}", "install what it needs, or raise deadline_s")
    if clean.exit_code:
        if copies.skipped:
            return not_run(gate, f"`{command}` fails, and the copy is incomplete{missing}", "name it in also_copy")
        reason = f"`{command}` fails without its seed: exit code {clean.exit_code}: {clean.last_line}"
        return issue(gate, reason, "make the check pass on the repository as it is", _output(clean))
    if check.seed.program:
        return _without_program(check, copies, folder)
    if problem := plant(tree, check.seed, folder, copies):
        return not_run(gate, f"the seed cannot be planted: {problem}", "correct the seed")
    seeded = copies.run(check.run, folder, check.deadline_s)
    if seeded.cannot_run:
        return not_run(gate, f"`{command}` with its seed: {seeded.cannot_run}", "correct the seed")
    seed = check.seed.patch or check.seed.file
    if not seeded.exit_code:
        return issue(
            gate, f"`{command}` passes with the mistake that {seed} plants", "let the check fail", _output(seeded)
        )
    if check.seed.expect and check.seed.expect not in seeded.output:
        reason = f"`{command}` fails with its seed, but its output lacks {check.seed.expect!r}: {seeded.last_line}"
        return not_run(gate, reason, "correct `expect`, or the seed", _output(seeded))
    reason = f"`{command}` passes, and fails with the mistake of {seed}: exit code {seeded.exit_code}"
    return GateRow(gate=gate, status=Status.OK, reason=reason + missing)


def _without_program(check: SeededCheck, copies: Copies, folder: Path) -> GateRow:
    gate, command, program = f"seeded.{check.name}", " ".join(check.run), check.seed.program
    with scratch_folder() as scratch:
        programs = stand_in(scratch, [program])
        path = os.pathsep.join((str(programs.folder), os.environ.get("PATH", os.defpath)))
        seeded = copies.run(check.run, folder, check.deadline_s, {"PATH": path})
        called = bool(programs.called)
    if not called:
        reason = f"`{command}` does not run {program} from PATH, so its seed shows nothing"
        return not_run(gate, reason, "name a program that it runs", _output(seeded))
    if seeded.cannot_run and not seeded.exit_code:
        return not_run(gate, f"`{command}` with its seed: {seeded.cannot_run}", "correct the seed")
    if not seeded.exit_code:
        reason = f"`{command}` passes although {program} fails"
        return issue(gate, reason, "let the check fail", _output(seeded))
    if check.seed.expect and check.seed.expect not in seeded.output:
        reason = f"`{command}` fails with its seed, but its output lacks {check.seed.expect!r}: {seeded.last_line}"
        return not_run(gate, reason, "correct `expect`, or the seed", _output(seeded))
    reason = f"`{command}` passes, and fails when {program} fails: exit code {seeded.exit_code}"
    return GateRow(gate=gate, status=Status.OK, reason=reason)


def _output(ran: Ran) -> tuple[Place, ...]:
    lines = [line for line in ran.output.splitlines() if line.strip()]
    return tuple(Place("output", 0, line[:300]) for line in lines[-5:])


def plant(tree: Tree, seed: Seed, folder: Path, copies: Copies) -> str:
    """Plant a seed in a copy, and return why it cannot be planted; "" when it is."""
    if seed.file:
        target = folder / seed.file
        try:
            if not target.parent.resolve().is_relative_to(folder.resolve()) or target.is_symlink():
                return f"{seed.file} leads out of the copy"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(seed.text, encoding="utf-8")
        except OSError as error:
            return f"{seed.file}: {error.strerror}"
        return ""
    patch = tree.inside(seed.patch)
    if patch is None:
        return f"{seed.patch} not found in the repository"
    ran = copies.run(("git", "apply", "--whitespace=nowarn", str(patch)), folder, 60.0)
    return ran.cannot_run or (ran.last_line if ran.exit_code else "")
