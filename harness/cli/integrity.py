"""`report --verify` and `report --write-statement`: whether runs are as the harness wrote them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli.exit_codes import ExitCode
from harness.errors import StoreError
from harness.printable import one_line
from harness.store import Verdict, compare, kept_runs, read_runs, statement_of, write_atomically

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.cli.invocation import Invocation
    from harness.store import StoredRun

_UNREADABLE = "unreadable"
_WIDTH = max(map(len, (*Verdict, _UNREADABLE)))
#: what is said about a run without a break
_SENTENCES = {
    Verdict.WHOLE: "",
    Verdict.UNFINISHED: "it was killed, or is still running; rows may be missing at the end",
    Verdict.NOT_CHAINED: "an older version wrote it; an edit may be unnoticed",
}


def verify_runs(invocation: Invocation, folders: Sequence[str], *, statement: str | None, strict: bool) -> ExitCode:
    """Print one line for each run, and one for each difference; connect to no server.

    :param folders: run folders, or folders of them; the reports folder when empty.
    :param statement: a file with a statement to compare with.
    :param strict: runs that are unfinished or not chained count, too.
    """
    runs, damaged = _runs(invocation, folders)
    for run in runs:
        reasons = run.integrity.reasons or (_SENTENCES[run.integrity.verdict],)
        count = len(run.results) + len(run.proofs) + len(run.trail_proofs) + len(run.observed_proofs)
        _print(
            run.integrity.verdict,
            "; ".join(filter(None, (f"{run.record.run_id}  {count} row{'' if count == 1 else 's'}", reasons[0]))),
        )
        for reason in reasons[1:]:
            _print("", reason)
    for sentence in damaged:
        _print(_UNREADABLE, sentence)
    differences = compare(Path(statement), runs) if statement is not None else ()
    for difference in differences:
        _print("statement", difference)
    verdicts = {run.integrity.verdict for run in runs}
    if damaged or differences or Verdict.EDITED in verdicts:
        return ExitCode.ISSUE
    return ExitCode.NOT_RUN if strict and verdicts != {Verdict.WHOLE} else ExitCode.OK


def write_statement(invocation: Invocation, folders: Sequence[str], path: str) -> ExitCode:
    """Write the in-toto statement about runs into a file.

    :raises StoreError: for a run that was edited or cannot be read.
    """
    runs, damaged = _runs(invocation, folders)
    if damaged:
        raise StoreError(damaged[0], hint="leave out this folder")
    write_atomically(Path(path), statement_of(runs), instead="another file")
    invocation.terminal.say(
        f"{path}: a statement about {len(runs)} run{'' if len(runs) == 1 else 's'}; it is not signed"
    )
    return ExitCode.OK


def _runs(invocation: Invocation, folders: Sequence[str]) -> tuple[tuple[StoredRun, ...], tuple[str, ...]]:
    if folders:
        return read_runs([Path(folder) for folder in folders])
    runs, damaged = kept_runs(invocation.settings.reports)
    if not runs and not damaged:
        raise StoreError("no run here", where=str(invocation.settings.reports), hint="harness verify makes one")
    return runs, damaged


def _print(word: str, sentence: str) -> None:
    sys.stdout.write(f"{word:<{_WIDTH}}  {one_line(sentence)}\n")
