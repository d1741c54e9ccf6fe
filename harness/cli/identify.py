"""`identify`: what is at the end of a connection string. Findings on stdout, prose on stderr."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING, Any

import msgspec

from harness.cli.arguments import seconds_up_to
from harness.errors import ConfigError, DatabaseError, HarnessError, TimedOutError, UsageError
from harness.recognition.contradictions import contradictions
from harness.recognition.findings import FACTS, Recognition
from harness.recognition.recognise import recognise

if TYPE_CHECKING:
    from argparse import Namespace, _SubParsersAction

    from harness.cli.context import Context

_EXIT_ISSUE = 1
_DEFAULT = "env:DATABASE_URL"
_MOST_CONNECTIONS = 100
_LONGEST_S = 600.0


def add_command(commands: _SubParsersAction[Any]) -> None:
    """Add `identify`."""
    command = commands.add_parser(
        "identify",
        help="find out what pooler and server a connection string leads to",
        description="Finds out by asking and trying what is between a client and PostgreSQL. Reads only, and leaves "
        "nothing behind; for a third of a second, longer where the server is far, it holds as many server connections "
        "as it can get.",
        epilog="exit codes: 0 it could look; 1 a finding contradicts what is declared; 2 usage; 3 it could not look",
        allow_abbrev=False,
    )
    command.add_argument(
        "dsn",
        nargs="?",
        default=_DEFAULT,
        metavar="DSN",
        help="a connection string, or env:NAME of the variable that holds one, so that no secret is in the shell's "
        f"history (default: {_DEFAULT})",
    )
    command.add_argument("--direct", metavar="DSN", help="the server itself, if there is a way to it")
    command.add_argument("--console", metavar="DSN", help="PgBouncer's admin console, with dbname=pgbouncer")
    command.add_argument(
        "--declared",
        action="append",
        default=[],
        metavar="FACT=VALUE",
        help="such as pool_mode=transaction; exit 1 when a finding contradicts it; may be repeated",
    )
    command.add_argument(
        "--deadline", type=seconds_up_to(_LONGEST_S), default=10.0, metavar="S", help="for everything (default: 10)"
    )
    command.add_argument(
        "--most-connections", type=_connections, default=12, metavar="N", help="at the same time (default: 12)"
    )
    command.add_argument("--json", action="store_true", help="for machines")
    command.set_defaults(run=identify)


def identify(context: Context, arguments: Namespace) -> int:
    """Print what was found.

    :raises DatabaseError: :raises TimedOutError: when nothing could be identified (exit 3).
    :raises UsageError: :raises ConfigError: for what cannot be asked (exit 2).
    """
    declared = _declared(arguments.declared)
    contradictions(Recognition(findings=()), declared)  # names and values that make no sense, before anything is asked
    given = {name: getattr(arguments, name) for name in ("dsn", "direct", "console")}
    strings = {name: _connection_string(each, name) for name, each in given.items() if each is not None}
    try:
        found = recognise(
            strings["dsn"],
            direct=strings.get("direct"),
            console=strings.get("console"),
            deadline_s=arguments.deadline,
            most_connections=arguments.most_connections,
            redactor=context.redactor,
        )
    except (DatabaseError, TimedOutError) as error:
        raise _one_message(error) from None
    _print(found, context, as_json=arguments.json)
    wrong = contradictions(found, declared)
    for sentence in wrong:
        context.terminal.say(f"contradicted: {sentence}", "bold red")
    known = sum(bool(each.value) for each in found.findings)
    context.terminal.say(
        f"{known} of {len(found.findings)} facts found in {found.elapsed_ms / 1000:.2f} s"
        + (f"; {len(declared) - len(wrong)} of {len(declared)} declared ones not contradicted" if declared else "")
    )
    return _EXIT_ISSUE if wrong else 0


def _one_message(error: HarnessError) -> HarnessError:
    """Return the error with a hint that fits its class, unless it has one."""
    if not error.hint and isinstance(error, TimedOutError):
        error.hint = "is it the right port? --deadline gives it more time"
    return error


def _connection_string(given: str, name: str) -> str:
    """Return a connection string, from the environment when it is named there."""
    if not given.startswith("env:"):
        return given
    variable = given.removeprefix("env:")
    found = os.environ.get(variable, "")
    if not found:
        where = name if name == "dsn" else f"--{name}"
        raise UsageError(
            f"the environment variable {variable} is not set",
            where=where.upper() if where == "dsn" else where,
            hint=f"{variable}='host=… dbname=… user=…', and the password in PGPASSWORD or a passfile",
        )
    return found


def _declared(given: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for each in given:
        fact, separator, value = each.partition("=")
        if not separator or not value:
            raise UsageError(f"--declared: found {each!r}, needed FACT=VALUE", hint="--declared pool_mode=transaction")
        if fact not in FACTS:
            raise UsageError(f"--declared: there is no fact {fact!r}", hint=f"one of: {', '.join(FACTS)}")
        if found.setdefault(fact, value) != value:
            raise ConfigError(f"--declared: {fact} is declared twice, as {found[fact]!r} and as {value!r}")
    return found


def _print(found: Recognition, context: Context, *, as_json: bool) -> None:
    if as_json:
        document = {"elapsed_ms": found.elapsed_ms, "findings": msgspec.to_builtins(found.findings)}
        sys.stdout.write(context.redactor(json.dumps(document, ensure_ascii=False)) + "\n")
        return
    rows = [("fact", "value", "confidence", "how")]
    rows += [(each.fact, each.value or "-", each.confidence.value, each.how) for each in found.findings]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        sys.stdout.write(context.redactor("  ".join([*cells, row[3]])) + "\n")


def _connections(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if not 3 <= number <= _MOST_CONNECTIONS:  # noqa: PLR2004 -- two that watch, and one that holds
        raise argparse.ArgumentTypeError(f"found {text!r}, needed a whole number from 3 to {_MOST_CONNECTIONS}")
    return number
