"""`lint`: judge filled tables. Findings on stdout, prose on stderr."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from harness.errors import UsageError
from harness.lint.linter import LintReport, lint
from harness.lint.rules import RULES

if TYPE_CHECKING:
    from argparse import Namespace, _SubParsersAction

    from harness.cli.context import Context

_EXIT_ISSUE = 1


def add_command(commands: _SubParsersAction[Any]) -> None:
    """Add `lint`."""
    command = commands.add_parser(
        "lint",
        help="judge filled adoption tables by the rules of honest evidence",
        description="Reads Markdown documents and judges the adoption tables in them, filled by this harness or by "
        "hand. It checks their form, and that pointers lead somewhere; whether a pointer shows what its row says, it "
        "cannot check. It runs no command and fetches nothing.",
        epilog="exit codes: 0 no error, and maybe warnings; 1 a finding is an error; 2 usage, or a document without "
        "any of the tables",
        allow_abbrev=False,
    )
    command.add_argument("files", nargs="*", metavar="FILE", help="a Markdown document")
    command.add_argument(
        "--root",
        metavar="DIR",
        help="the repository that pointers lead into (default: the nearest folder above each document with a .git, "
        "else the document's own)",
    )
    command.add_argument("--rules", action="store_true", help="list the rules, and what of each is left to people")
    command.add_argument("--json", action="store_true", help="for machines")
    command.set_defaults(run=lint_files)


def lint_files(context: Context, arguments: Namespace) -> int:
    """Print what was found.

    :raises UsageError: for what cannot be judged at all (exit 2).
    """
    if arguments.rules:
        _print_rules(as_json=arguments.json)
        return 0
    if not arguments.files:
        raise UsageError("lint needs a document, and was given none", hint="harness lint docs/adoption.md")
    found = lint([Path(each) for each in arguments.files], Path(arguments.root) if arguments.root else None)
    _print(found, context, as_json=arguments.json)
    _sum_up(found, context)
    return _EXIT_ISSUE if found.errors else 0


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


def _print(found: LintReport, context: Context, *, as_json: bool) -> None:
    if as_json:
        document = {"errors": found.errors, "warnings": found.warnings, **msgspec.to_builtins(found)}
        sys.stdout.write(context.redactor(json.dumps(document, ensure_ascii=False)) + "\n")
        return
    for finding in found.findings:
        sys.stdout.write(context.redactor(str(finding)) + "\n")


def _sum_up(found: LintReport, context: Context) -> None:
    for path, tables in found.tables.items():
        kinds = dict.fromkeys(table.kind for table in tables)
        rows = sum(table.rows for table in tables)
        context.terminal.say(f"{path}: {len(tables)} tables, {rows} rows: {', '.join(kinds)}")
    context.terminal.say("not judged, and for people to look at:")
    for sentence in found.not_judged:
        context.terminal.say(f"  {sentence}")
    style = "bold red" if found.errors else ""
    context.terminal.say(f"errors={found.errors} warnings={found.warnings}", style)
