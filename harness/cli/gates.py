"""`gates`: judge what protects a repository. Rows are on stdout, prose on stderr."""

from __future__ import annotations

import json
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from harness.cli import completion, options
from harness.cli.exit_codes import ExitCode
from harness.cli.invocation import Invocation, command
from harness.errors import UsageError
from harness.gates.declaration import load_declaration
from harness.gates.gates import GATES, judge_gates
from harness.lint.secrets import masked
from harness.model import Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.gates.rows import GateRow


@command(
    "gates",
    section="Your own systems",
    examples=("harness gates .", "harness gates . --run --strict", "harness gates path/to/repository --json"),
    exit_codes=(
        ("0", "no row is an Issue; rows that are Not run count only under --strict"),
        ("1", "at least one row is an Issue"),
        ("2", "invalid usage, or a mistake in [gates]"),
        ("3", "every row is Not run or N/A"),
        ("4", "no Issue, but at least one row is Not run, under --strict"),
    ),
)
@click.argument(
    "path", required=False, metavar="[PATH]", shell_complete=completion.folder_names, help="folder of the repository"
)
@options.option(
    "--config",
    metavar="FILE",
    section="Gates",
    shell_complete=completion.file_names,
    help="read [gates] of this TOML file (default: harness.toml in PATH)",
)
@options.option(
    "--run",
    "runs",
    is_flag=True,
    section="Gates",
    help="run the declared checks with and without their seeds, the commands that runbooks mark as runnable, and smoke "
    "scripts where each program fails, in copies of the repository; they run with your rights, so only for a "
    "repository that you trust",
)
@options.option("--rules", is_flag=True, section="Gates", help="list the gates, and what each leaves to people")
@options.option("--strict", is_flag=True, section="Gates", help="exit with 4 if a row is Not run")
@options.json_output
def judge_repository(
    invocation: Invocation,
    path: str | None,
    *,
    config: str | None,
    runs: bool,
    rules: bool,
    strict: bool,
    as_json: bool,
) -> int:
    """Judge what protects a repository: CI for pull requests, templates, owners, runbooks, secrets and flaky tests.

    Reads the files and the git history of the repository, and fetches nothing. Without `--run` it runs no command of
    the repository. `[gates]` in its harness.toml declares checks with seeded failures, and what does not apply.
    """
    if rules:
        _print_rules(as_json=as_json)
        return ExitCode.OK
    if path is None:
        raise UsageError("missing argument PATH", hint="harness gates .")
    root = Path(path)
    if not root.is_dir():
        raise UsageError("not a folder", where=path, hint="name the folder of a repository: harness gates .")
    rows = judge_gates(
        root,
        load_declaration(root, Path(config) if config else None),
        datetime.now(tz=UTC).date(),
        runs=runs,
        say=lambda line: invocation.terminal.say(masked(line.rstrip())) if invocation.terminal.verbose else None,
        stopped=lambda: invocation.signals.received,
    )
    _print_rows(rows, invocation, as_json=as_json)
    return _exit_code(rows, invocation, strict=strict)


def _print_rules(*, as_json: bool) -> None:
    if as_json:
        rules = [{"gate": gate.name, "sentence": gate.sentence, "left_to_people": gate.left} for gate in GATES]
        sys.stdout.write(json.dumps(rules, ensure_ascii=False) + "\n")
        return
    for gate in GATES:
        left = f" Not judged: {gate.left}." if gate.left else ""
        sys.stdout.write(f"{gate.name:<20} {gate.sentence}{left}\n")


def _print_rows(rows: Sequence[GateRow], invocation: Invocation, *, as_json: bool) -> None:
    counts = Counter(row.status for row in rows)
    if as_json:
        shown = {str(status): counts[status] for status in Status}
        document = json.dumps({"counts": shown, "rows": msgspec.to_builtins(rows)}, ensure_ascii=False)
        sys.stdout.write(invocation.redactor(masked(document)) + "\n")
    else:
        for row in rows:
            sys.stdout.write(invocation.redactor(masked(f"{row.status!s:<8}{row.gate:<21} {row.reason}")) + "\n")
            for place in row.places if row.status in {Status.ISSUE, Status.NOT_RUN} or len(row.places) == 1 else ():
                sys.stdout.write(invocation.redactor(masked(f"        {place}")) + "\n")
            if row.fix:
                sys.stdout.write(invocation.redactor(masked(f"        fix: {row.fix}")) + "\n")
    say = invocation.terminal.say
    say("not judged, for people to review:")
    for gate in GATES:
        if gate.left:
            say(f"  {gate.left} ({gate.name})")
    summary = " ".join(f"{name}={counts[status]}" for name, status in _COUNTED)
    say(summary, "bold red" if counts[Status.ISSUE] else "")


_COUNTED = (("OK", Status.OK), ("issues", Status.ISSUE), ("not_applicable", Status.NA), ("not_run", Status.NOT_RUN))


def _exit_code(rows: Sequence[GateRow], invocation: Invocation, *, strict: bool) -> ExitCode:
    statuses = {row.status for row in rows}
    if invocation.signals.received:
        return ExitCode.INTERRUPTED
    if Status.ISSUE in statuses:
        return ExitCode.ISSUE
    if Status.OK not in statuses:
        return ExitCode.NOTHING_VERIFIED
    return ExitCode.NOT_RUN if strict and Status.NOT_RUN in statuses else ExitCode.OK
