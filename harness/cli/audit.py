"""`audit …`: the reference layer in a database of one's own. Data on stdout, what was done on stderr."""

from __future__ import annotations

import logging
import os
import re
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from msgspec.structs import asdict

from harness.audit.coverage import coverage, definitions, violations
from harness.audit.export import FORMATS, export
from harness.audit.installing import Redaction, attach, install, kept_before
from harness.audit.reading import Filter, FilterError, count_matching
from harness.audit.retention import Policy, RetentionError, purge
from harness.database import SqlError, connect_to, describe
from harness.errors import ConfigError, DatabaseError, UsageError

if TYPE_CHECKING:
    from argparse import Namespace, _SubParsersAction
    from collections.abc import Iterator

    from harness.cli.context import Context
    from harness.database import Client

_EXIT_ISSUE = 1


def add_commands(commands: _SubParsersAction[Any]) -> None:
    """Add `audit` and what it does."""
    audit = commands.add_parser("audit", help="use the reference audit layer in a database of your own")
    actions = audit.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, function, text in (
        ("install", _install, "install it or bring it up to date, and print what changed"),
        ("attach", _attach, "put capture on tables, and print the statements"),
        ("coverage", _coverage, "print which tables are captured; exit 1 when an expected one is not"),
        ("definitions", _definitions, "print what decides how tables are captured, for comparing two environments"),
        ("purge", _purge, "delete what is older than the policy keeps"),
        ("export", _export, "write the trail as CSV, JSON or NDJSON"),
    ):
        command = actions.add_parser(name, help=text, allow_abbrev=False)
        command.add_argument(
            "--dsn-variable",
            default="DATABASE_URL",
            metavar="NAME",
            help="environment variable that holds the connection string (default: DATABASE_URL); "
            "the owner of the trail, and not through a pooler that refuses DDL",
        )
        if name in {"install", "attach", "purge", "export"}:
            command.add_argument("--dry-run", action="store_true", help="say what it would do, and do nothing")
        command.set_defaults(run=function)
    chosen = actions.choices["attach"]
    chosen.add_argument(
        "tables", nargs="+", metavar="TABLE", help='as SQL spells it: posts, shop.orders, \'"Shop"."Items"\''
    )
    chosen.add_argument("--changed-from", action="store_true", help="keep prior values, too")
    for option, text in (
        ("--exclude", "keep no value of this column"),
        ("--mask", "keep the placeholder instead of this column's value"),
        ("--except-column", "do not name this column as changed; it is kept with the row"),
    ):
        chosen.add_argument(option, action="append", default=[], metavar="COLUMN", help=text + "; may be repeated")
    chosen.add_argument("--placeholder", default="[REDACTED]")
    chosen.add_argument("--no-redaction", action="store_true", help="take rules off; without any option they stay")
    actions.choices["coverage"].add_argument(
        "--expect", action="append", default=[], metavar="TABLE", help="may be repeated"
    )
    chosen = actions.choices["purge"]
    chosen.add_argument("--keep-days", type=int, required=True, metavar="N")
    chosen.add_argument("--batch-size", type=int, default=1000, metavar="N")
    chosen.add_argument("--max-batches", type=int, default=10_000, metavar="N")
    chosen = actions.choices["export"]
    chosen.add_argument("--format", choices=FORMATS, default="json")
    chosen.add_argument("--output", "-o", metavar="FILE", help="default: stdout")
    chosen.add_argument("--max-rows", type=int, default=10_000, metavar="N", help="0 for all (default: 10000)")
    chosen.add_argument("--table", metavar="NAME", help="as it is stored, without quotes")
    chosen.add_argument("--correlation-id", metavar="ID")
    chosen.add_argument("--since-snapshot", metavar="TEXT", help="only what an earlier export could not see")


@contextmanager
def _connected(arguments: Namespace) -> Iterator[Client]:
    dsn = os.environ.get(arguments.dsn_variable)
    if not dsn:
        raise UsageError(
            f"the environment variable {arguments.dsn_variable} is not set",
            hint=f"{arguments.dsn_variable}='host=… dbname=… user=…', and the password in PGPASSWORD or a passfile",
        )
    try:
        client = connect_to(dsn)
    except ConfigError as error:
        error.where = f"${arguments.dsn_variable}"
        raise
    except SqlError as error:
        raise DatabaseError(f"cannot connect: {describe(error)}", where=f"${arguments.dsn_variable}") from None
    with client:
        try:
            yield client
        except SqlError as error:
            # an undefined function or table of the layer
            missing = error.sqlstate in {"42883", "42P01"} and re.search("threadline_|audit_", str(error))
            hint = "is the audit layer there? harness audit install" if missing else error.diag.message_hint or ""
            raise DatabaseError(describe(error), where=f"database {client.info.dbname}", hint=hint) from None
        except (FilterError, RetentionError, ValueError) as error:
            raise UsageError(str(error)) from None


def _lines(lines: list[str]) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def _install(context: Context, arguments: Namespace) -> int:
    with _connected(arguments) as client:
        told = install(client, dry_run=arguments.dry_run)
    _lines(told)
    context.terminal.say(f"{len(told)} objects {'would change' if arguments.dry_run else 'changed'}")
    return 0


def _attach(context: Context, arguments: Namespace) -> int:
    named = [*arguments.exclude, *arguments.mask, *arguments.except_column]
    rules = Redaction(
        exclude=tuple(arguments.exclude),
        mask=tuple(arguments.mask),
        except_columns=tuple(arguments.except_column),
        placeholder=arguments.placeholder,
    )
    with _connected(arguments) as client:
        told = attach(
            client,
            arguments.tables,
            changed_from=arguments.changed_from,
            redaction=rules if named or arguments.no_redaction else None,
            dry_run=arguments.dry_run,
        )
        for table in arguments.tables:
            for column, count in kept_before(client, table, rules).items():
                context.terminal.say(f"{table}: {count} earlier changes hold values of {column}, and keep them")
    _lines(told)
    context.terminal.say(f"{len(told)} statements {'would be run' if arguments.dry_run else 'run'}")
    return 0


def _coverage(context: Context, arguments: Namespace) -> int:
    with _connected(arguments) as client:
        found = coverage(client)
        wrong = violations(found, arguments.expect) if arguments.expect else []
    for each in found:
        sys.stdout.write(
            f"{'uncovered' if each.problem else 'covered':<9}  {each.name}  {each.problem or ''}".rstrip() + "\n"
        )
    for violation in wrong:
        context.terminal.say(f"{violation.kind} {violation.name}: {violation.problem}")
    covered = sum(each.problem is None for each in found)
    context.terminal.say(f"summary: {covered} of {len(found)} tables covered, {len(wrong)} of those expected are not")
    return _EXIT_ISSUE if wrong else 0


def _definitions(_context: Context, arguments: Namespace) -> int:
    with _connected(arguments) as client:
        _lines([f"{name}: {text}" for name, text in sorted(definitions(client).items())])
    return 0


def _purge(context: Context, arguments: Namespace) -> int:
    class Say(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            context.terminal.say(record.getMessage())

    logger = logging.getLogger("harness.audit.purge")
    logger.setLevel(logging.INFO)
    logger.addHandler(Say())
    with _connected(arguments) as client:
        done = purge(
            client,
            Policy(enabled=True, keep_days=arguments.keep_days),
            batch_size=arguments.batch_size,
            max_batches=arguments.max_batches,
            dry_run=arguments.dry_run,
        )
    _lines([f"{name}={value}" for name, value in asdict(done).items()])
    return 0


@contextmanager
def _replaced(path: Path) -> Iterator[TextIO]:
    """Open a file for writing that appears under its name when it is whole; what is no file is written to as it is."""
    path = path.resolve()
    if path.exists() and not path.is_file():
        with path.open("w", encoding="utf-8", newline="") as sink:  # a device, a pipe; a folder says what it is
            yield sink
        return
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # for the owner's eyes only
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as sink:
            yield sink
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    Path(name).replace(path)


def _export(context: Context, arguments: Namespace) -> int:
    names = ("table", "correlation_id", "since_snapshot")
    given = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    with _connected(arguments) as client:
        which = Filter.from_map(given)
        if arguments.dry_run:
            _lines([f"matching_rows={count_matching(client, which)}"])
            return 0
        kind, most = arguments.format, arguments.max_rows or None
        if arguments.output:
            with _replaced(Path(arguments.output)) as sink:
                done = export(client, sink, kind, which, max_rows=most)
        else:
            done = export(client, sys.stdout, kind, which, max_rows=most)
    cut = f"; CUT at --max-rows {arguments.max_rows}" if done.truncated else ""
    context.terminal.say(f"{done.returned_count} changes exported{cut}; snapshot {done.snapshot}")
    return 0
