"""`lint`: judge filled tables. Findings are on stdout, prose on stderr."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from harness.cli import completion, options
from harness.cli.exit_codes import ExitCode
from harness.cli.invocation import Invocation, command
from harness.errors import UsageError
from harness.lint.linter import LintReport, lint
from harness.lint.rules import RULES

if TYPE_CHECKING:
    from collections.abc import Sequence


@command(
    "lint",
    section="Your own systems",
    examples=("harness lint docs/adoption.md", "harness lint docs/adoption.md --json", "harness lint --rules"),
    exit_codes=(
        ("0", "no finding is an error; warnings are possible"),
        ("1", "at least one finding is an error"),
        ("2", "invalid usage, or a document without any of the tables"),
    ),
)
@click.argument("files", nargs=-1, metavar="[FILE]...", shell_complete=completion.file_names, help="Markdown documents")
@options.option(
    "--root",
    metavar="DIR",
    section="Rules",
    shell_complete=completion.folder_names,
    help="the repository that pointers lead into (default: the nearest parent folder of each document with a .git, "
    "otherwise the folder of the document)",
)
@options.option("--rules", is_flag=True, section="Rules", help="list the rules, and what each leaves to people")
@options.json_output
def lint_documents(
    invocation: Invocation, files: Sequence[str], *, root: str | None, rules: bool, as_json: bool
) -> int:
    """Judge filled adoption tables by the rules of honest evidence.

    Reads Markdown documents with tables that this harness or a person filled. It judges their form and whether pointers
    lead somewhere. It cannot judge whether a pointer shows what its row says. It runs no command and fetches nothing.
    """
    if rules:
        _print_rules(as_json=as_json)
        return ExitCode.OK
    if not files:
        raise UsageError("missing argument FILE", hint="harness lint docs/adoption.md")
    found = lint([Path(file) for file in files], Path(root) if root else None)
    _print_findings(found, invocation, as_json=as_json)
    _say_summary(found, invocation)
    return ExitCode.ISSUE if found.errors else ExitCode.OK


def _print_rules(*, as_json: bool) -> None:
    if as_json:
        rules = [
            {"rule": rule.number, "sentence": rule.sentence, "judged": bool(rule.judge), "left_to_people": rule.left}
            for rule in RULES
        ]
        sys.stdout.write(json.dumps(rules, ensure_ascii=False) + "\n")
        return
    for rule in RULES:
        left = f" Not judged: {rule.left}." if rule.left else ""
        sys.stdout.write(f"{rule.number:<4} {rule.sentence}{left}\n")


def _print_findings(found: LintReport, invocation: Invocation, *, as_json: bool) -> None:
    if as_json:
        document = {"errors": found.errors, "warnings": found.warnings, **msgspec.to_builtins(found)}
        sys.stdout.write(invocation.redactor(json.dumps(document, ensure_ascii=False)) + "\n")
        return
    for finding in found.findings:
        sys.stdout.write(invocation.redactor(str(finding)) + "\n")


def _say_summary(found: LintReport, invocation: Invocation) -> None:
    say = invocation.terminal.say
    for path, tables in found.tables.items():
        kinds = dict.fromkeys(table.kind for table in tables)
        rows = sum(table.rows for table in tables)
        counted = f"{len(tables)} table{'' if len(tables) == 1 else 's'}, {rows} row{'' if rows == 1 else 's'}"
        say(f"{path}: {counted}: {', '.join(kinds)}")
    say("not judged, for people to review:")
    for sentence in found.not_judged:
        say(f"  {sentence}")
    say(f"errors={found.errors} warnings={found.warnings}", "bold red" if found.errors else "")
