"""`audit …`: the reference layer in a database of your own. Data is on stdout, what was done is on stderr."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from harness.audit.coverage import coverage, definitions, violations
from harness.audit.installing import Redaction, attach, install, kept_before
from harness.cli import audit_data, options
from harness.cli.audit_database import connected, dry_run_option, dsn_variable, print_lines
from harness.cli.exit_codes import ExitCode
from harness.cli.invocation import Invocation, command
from harness.cli.parser import Group

if TYPE_CHECKING:
    from collections.abc import Sequence


@command("install", examples=("harness audit install --dry-run", "harness audit install"))
@dsn_variable
@dry_run_option
def install_layer(invocation: Invocation, *, dsn_variable: str, dry_run: bool) -> int:
    """Install or update the reference layer, and print the changed objects."""
    with connected(dsn_variable) as client:
        changes = install(client, dry_run=dry_run)
    print_lines(changes)
    invocation.terminal.say(f"{len(changes)} objects {'would change' if dry_run else 'changed'}")
    return ExitCode.OK


@command(
    "attach",
    examples=(
        "harness audit attach posts shop.orders --dry-run",
        "harness audit attach users --mask email --exclude password_hash",
    ),
)
@click.argument(
    "tables", nargs=-1, required=True, metavar="TABLE...", help='as in SQL: posts, shop.orders, \'"Shop"."Items"\''
)
@options.option("--changed-from", is_flag=True, section="Capture", help="also keep prior values")
@options.option(
    "--exclude",
    multiple=True,
    metavar="COLUMN",
    section="Redaction",
    help="keep no value of this column; may be repeated",
)
@options.option(
    "--mask",
    multiple=True,
    metavar="COLUMN",
    section="Redaction",
    help="keep the placeholder in place of the value of this column; may be repeated",
)
@options.option(
    "--except-column",
    "except_columns",
    multiple=True,
    metavar="COLUMN",
    section="Redaction",
    help="keep this column with the row, and never name it as changed; may be repeated",
)
@options.option("--placeholder", default="[REDACTED]", metavar="TEXT", section="Redaction", help="default: [REDACTED]")
@options.option(
    "--no-redaction",
    is_flag=True,
    section="Redaction",
    help="remove the rules; without any of these options they stay",
)
@dsn_variable
@dry_run_option
def attach_tables(
    invocation: Invocation,
    tables: Sequence[str],
    *,
    changed_from: bool,
    exclude: Sequence[str],
    mask: Sequence[str],
    except_columns: Sequence[str],
    placeholder: str,
    no_redaction: bool,
    dsn_variable: str,
    dry_run: bool,
) -> int:
    """Attach capture to tables, and print the statements."""
    rules = Redaction(
        exclude=tuple(exclude), mask=tuple(mask), except_columns=tuple(except_columns), placeholder=placeholder
    )
    has_rules = bool(exclude or mask or except_columns)
    with connected(dsn_variable) as client:
        statements = attach(
            client,
            tables,
            changed_from=changed_from,
            redaction=rules if has_rules or no_redaction else None,
            dry_run=dry_run,
        )
        for table in tables:
            for column, count in kept_before(client, table, rules).items():
                invocation.terminal.say(
                    f"{table}: {count} earlier changes hold values of {column}; the rules leave them"
                )
    print_lines(statements)
    invocation.terminal.say(f"{len(statements)} statements {'would be run' if dry_run else 'run'}")
    return ExitCode.OK


@command(
    "coverage",
    examples=("harness audit coverage", "harness audit coverage --expect posts --expect shop.orders"),
    exit_codes=(("0", "every expected table is covered"), ("1", "an expected table is missing or not covered")),
)
@options.option(
    "--expect", multiple=True, metavar="TABLE", section="Expectations", help="a table to be covered; may be repeated"
)
@dsn_variable
def print_coverage(invocation: Invocation, *, expect: Sequence[str], dsn_variable: str) -> int:
    """Print which tables are captured."""
    with connected(dsn_variable) as client:
        tables = coverage(client)
        violated = violations(tables, expect) if expect else []
    for table in tables:
        state = "uncovered" if table.problem else "covered"
        sys.stdout.write(f"{state:<9}  {table.name}  {table.problem or ''}".rstrip() + "\n")
    for violation in violated:
        invocation.terminal.say(f"{violation.kind} {violation.name}: {violation.problem}")
    covered = sum(table.problem is None for table in tables)
    invocation.terminal.say(
        f"summary: {covered} of {len(tables)} tables covered, {len(violated)} of the expected tables not covered"
    )
    return ExitCode.ISSUE if violated else ExitCode.OK


@command("definitions", examples=("harness audit definitions > production.txt",))
@dsn_variable
def print_definitions(_invocation: Invocation, *, dsn_variable: str) -> int:
    """Print what decides how tables are captured, to compare two environments."""
    with connected(dsn_variable) as client:
        print_lines(f"{name}: {text}" for name, text in sorted(definitions(client).items()))
    return ExitCode.OK


audit = Group(
    "audit",
    section="Your own systems",
    help="Use the reference audit layer in a database of your own.",
    examples=("harness audit install --dry-run", "harness audit attach posts", "harness audit coverage --expect posts"),
    commands=[
        install_layer,
        attach_tables,
        print_coverage,
        print_definitions,
        audit_data.purge_trail,
        audit_data.export_trail,
    ],
)
