"""Smoke scripts of workflows: each fails when the programs that it runs fail, and the code of the repository is broken.

A script that passes although nothing works exercises nothing. Nothing of the system under test runs here: every program
has a stand-in that fails. So it is certain that such a script cannot fail, and a script that fails may still miss
mistakes: a declared check shows that.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.errors import HarnessError
from harness.gates.programs import Kind, own_script, unwrapped
from harness.gates.rows import GateRow, Place, judged, not_run
from harness.gates.shell import commands_of
from harness.gates.shell_words import UnreadableScriptError
from harness.gates.stand_ins import stand_in_for_all
from harness.gates.tree import CODE
from harness.job_engines.scratch import scratch_folder
from harness.model import Status

if TYPE_CHECKING:
    from harness.gates.copies import Copies
    from harness.gates.stand_ins import StandIns
    from harness.gates.steps import Executed, Workflows
    from harness.gates.tree import Tree

_GATE = "smoke.fails"
_DECLARE = 'declare a check with a mistake: [[gates.checks]] name = "smoke", run = ["…"], seed = { program = "curl" }'
_DEADLINE_S = 20.0
_MOST = 5
_SHELLS = frozenset({"bash", "sh", "dash", "zsh"})
#: no language reads it
_BROKEN = ")]} broken {[(\n"
#: programs that have no stand-in: by an absolute path or a variable, and connections of Bash itself
_OUT_OF_REACH = re.compile(r"[/~$]")
_NAME = re.compile(r"\w[\w.+-]{0,60}")
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)


class _Smoke(Struct, frozen=True, kw_only=True):
    """A smoke script, and how the workflow runs it."""

    place: Place
    script: str
    arguments: tuple[str, ...]
    given: dict[str, str]
    folder: str
    #: words of it that may be names of programs
    programs: frozenset[str]
    #: names of the files that it reads with `source`
    sourced: frozenset[str]
    out_of_reach: str = ""


def smoke_row(tree: Tree, found: Workflows, copies: Copies | None, *, declared: bool) -> GateRow:
    """Judge the smoke scripts of workflows.

    :param copies: where to run them; None to run nothing.
    :param declared: whether a check with the name `smoke` is declared, which shows more.
    """
    steps = [
        step for step in found.executed
        if Kind.SMOKE in step.kinds and step.words and not (step.lost or step.unclear or step.never)
    ]  # fmt: skip
    unique = list({(step.words, step.folder): step for step in steps}.values())[:_MOST]
    if not unique:
        return GateRow(gate=_GATE, status=Status.NA, reason="no workflow runs a smoke script whose failure counts")
    smokes = [_smoke(tree, step) for step in unique]
    unknown = [smoke for smoke in smokes if isinstance(smoke, Place)]
    scripts = [smoke for smoke in smokes if isinstance(smoke, _Smoke)]
    if declared and not scripts:
        return GateRow(gate=_GATE, status=Status.NA, reason="not a shell script; see the declared check `smoke`")
    if not scripts:
        return judged(_GATE, undecided=unknown, ok="", fix=_DECLARE)
    if copies is None:
        why = f"{scripts[0].place.what} runs only with --run"
        return not_run(_GATE, why, "add --run if you trust the repository", [smoke.place for smoke in scripts])
    broken: list[Place] = []
    undecided = [] if declared else list(unknown)
    kept: list[Place] = []
    for smoke in scripts:
        try:
            with copies.copy() as folder, scratch_folder() as scratch:
                status, why = _run(tree, smoke, copies, folder, scratch)
        except (HarnessError, OSError) as error:
            status, why = Status.NOT_RUN, f"the repository cannot be copied: {error}"
        place = Place(smoke.place.path, smoke.place.line, f"{smoke.place.what} {why}")
        {Status.ISSUE: broken, Status.NOT_RUN: undecided, Status.OK: kept}[status].append(place)
    reason = kept[0].what if kept else ""
    return judged(_GATE, broken=broken, undecided=undecided, shown=kept, ok=reason, fix=_DECLARE)


def _smoke(tree: Tree, step: Executed) -> _Smoke | Place:
    """Return how a step runs its script; its place, with the reason, if that is another program."""
    command = unwrapped(step.words)
    script = own_script(command)
    path = PurePosixPath(os.path.normpath(PurePosixPath(step.folder, script[0]))).as_posix() if script else ""
    text = tree.text(path) if path else None
    first = text.partition("\n")[0] if text else ""
    is_shell = re.match(r"#!.*\b(?:ba|da|z)?sh\b", first) or (path.endswith(".sh") and not first.startswith("#!"))
    if text is None or not is_shell:
        return Place(step.path, step.line, f"{step.text} is not a shell script of the repository, so nothing is seeded")
    try:
        ran = [found.words for found in commands_of(text, 1, errexit=False, pipefail=False)]
    except UnreadableScriptError as error:
        return Place(step.path, step.line, f"{path} is not read: {error}")
    far = next((word for words in ran for word in (words[0], *unwrapped(words)[:1]) if _OUT_OF_REACH.match(word)), "")
    shell = command[0] if command[0] in _SHELLS else "bash" if command[0] in {"source", "."} else ""
    program = shutil.which(shell) if shell else None
    at = command.index(script[0])
    return _Smoke(
        place=Place(step.path, step.line, step.text),
        script=path,
        arguments=(program, *command[1 * bool(shell) :]) if program else tuple(command[at:]),
        given={match[1]: match[2] for word in step.words if (match := _ASSIGNMENT.fullmatch(word))},
        folder=step.folder,
        programs=frozenset(_NAME.findall(text)),
        sourced=frozenset(
            PurePosixPath(words[1]).name for words in ran if words[0] in {"source", "."} and len(words) > 1
        ),
        out_of_reach="/dev/tcp" if "/dev/tcp/" in text else far,
    )


def _run(tree: Tree, smoke: _Smoke, copies: Copies, folder: Path, scratch: Path) -> tuple[Status, str]:
    """Run a smoke script where nothing works, and return its status with the end of a sentence."""
    sourced = [tree.text(name) or "" for name in tree.files if PurePosixPath(name).name in smoke.sourced]
    programs = stand_in_for_all(scratch, smoke.programs.union(*map(_NAME.findall, sourced)))
    _break(tree, smoke, folder, programs)
    ran = copies.run(smoke.arguments, folder / smoke.folder, _DEADLINE_S, {**smoke.given, "PATH": str(programs.folder)})
    called = programs.called
    shown = ", ".join(called[:5]) + (f" and {len(called) - 5} more" if len(called) > 5 else "")  # noqa: PLR2004
    if ran.cannot_run and not ran.exit_code:
        return Status.NOT_RUN, f"shows nothing where each program fails: {ran.cannot_run}"
    if ran.exit_code and called:
        return Status.OK, f"fails when what it runs ({shown}) fails: exit code {ran.exit_code}"
    if ran.exit_code:
        return Status.NOT_RUN, f"fails before it runs a program: exit code {ran.exit_code}: {ran.last_line}"
    if smoke.out_of_reach:
        return Status.NOT_RUN, f"passes, but {smoke.out_of_reach} cannot be replaced by a program that fails"
    if not called:
        return Status.NOT_RUN, "passes, and runs no program that can be replaced by one that fails"
    return Status.ISSUE, f"exits with 0 although what it runs ({shown}) fails"


def _break(tree: Tree, smoke: _Smoke, folder: Path, programs: StandIns) -> None:
    """Replace all code of a copy but that of the smoke script: shell scripts fail, and no other source can be read."""
    for name in tree.files:
        file = folder / name
        if name == smoke.script or file.name in smoke.sourced or file.is_symlink() or not file.is_file():
            continue
        if file.suffix in CODE:
            file.write_text(_BROKEN)
        elif file.suffix == ".sh" or os.access(file, os.X_OK):
            file.write_text(programs.script)
