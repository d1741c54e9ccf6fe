"""`identify`: what a connection string leads to. Findings are on stdout, prose on stderr."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import click
import msgspec

from harness.cli import options
from harness.cli.exit_codes import ExitCode
from harness.cli.invocation import Invocation, command
from harness.cli.parser import Seconds, WholeNumber
from harness.config import nearest
from harness.errors import ConfigError, DatabaseError, HarnessError, TimedOutError, UsageError
from harness.recognition.contradictions import contradictions, doubts
from harness.recognition.findings import FACTS, Recognition
from harness.recognition.recognise import recognise

if TYPE_CHECKING:
    from collections.abc import Sequence

_DEFAULT = "env:DATABASE_URL"
#: two connections watch, and one holds a server connection
_FEWEST_CONNECTIONS = 3
_MOST_CONNECTIONS = 100
_LONGEST_S = 600.0


@command(
    "identify",
    section="Your own systems",
    examples=(
        "harness identify",
        "harness identify env:STAGING_URL --declared pool_mode=transaction",
        "harness identify env:STAGING_URL --direct env:STAGING_DIRECT_URL --console env:PGBOUNCER_URL --json",
    ),
    exit_codes=(
        ("0", "the probes ran"),
        ("1", "a certain finding contradicts a declared fact"),
        ("2", "invalid usage or configuration"),
        ("3", "nothing could be identified"),
    ),
)
@click.argument(
    "dsn",
    required=False,
    default=_DEFAULT,
    metavar="[DSN]",
    help="a connection string, or env:NAME of the variable that holds one, which keeps secrets out of the shell's "
    f"history (default: {_DEFAULT})",
)
@options.option("--direct", metavar="DSN", section="Connections", help="the server itself, if it can be reached")
@options.option(
    "--console", metavar="DSN", section="Connections", help="PgBouncer's admin console, with dbname=pgbouncer"
)
@options.option(
    "--deadline",
    type=Seconds(_LONGEST_S),
    default=10.0,
    metavar="S",
    section="Connections",
    help="seconds for all probes (default: 10)",
)
@options.option(
    "--most-connections",
    type=WholeNumber(_FEWEST_CONNECTIONS, _MOST_CONNECTIONS),
    default=12,
    metavar="N",
    section="Connections",
    help="concurrent connections (default: 12)",
)
@options.option(
    "--declared",
    multiple=True,
    metavar="FACT=VALUE",
    section="Comparison",
    help="such as pool_mode=transaction; exits with 1 when a certain finding contradicts it; may be repeated",
)
@options.json_output
def identify(
    invocation: Invocation,
    dsn: str,
    *,
    direct: str | None,
    console: str | None,
    deadline: float,
    most_connections: int,
    declared: Sequence[str],
    as_json: bool,
) -> int:
    """Find out which pooler and server a connection string leads to.

    Queries and probes what is between a client and PostgreSQL. Reads only, and leaves nothing behind. For a third of a
    second, longer when the server is far away, it holds as many server connections as it can get.
    """
    facts = _declared_facts(declared)
    contradictions(Recognition(findings=()), facts)  # invalid names and values are errors before anything is queried
    try:
        found = recognise(
            _connection_string(dsn, "DSN"),
            direct=_connection_string(direct, "--direct") if direct is not None else None,
            console=_connection_string(console, "--console") if console is not None else None,
            deadline_s=deadline,
            most_connections=most_connections,
            redactor=invocation.redactor,
        )
    except (DatabaseError, TimedOutError) as error:
        raise _with_hint(error) from None
    _print(found, invocation, as_json=as_json)
    contradicted = contradictions(found, facts)
    for sentence in contradicted:
        invocation.terminal.say(f"contradicted: {sentence}", "bold red")
    for sentence in doubts(found, facts):
        invocation.terminal.say(f"differs, and could not be forced: {sentence}", "yellow")
    known = sum(bool(finding.value) for finding in found.findings)
    summary = f"{known} of {len(found.findings)} facts found in {found.elapsed_ms / 1000:.2f} s"
    if facts:
        summary += f"; {len(contradicted)} of {len(facts)} declared facts contradicted"
    invocation.terminal.say(summary)
    return ExitCode.ISSUE if contradicted else ExitCode.OK


def _with_hint(error: HarnessError) -> HarnessError:
    if error.where == "the connection":  # the only one, unless --direct or --console name another
        error.where = ""
    if not error.hint and isinstance(error, TimedOutError):
        error.hint = "check the port, or allow more time with --deadline"
    return error


def _connection_string(given: str, name: str) -> str:
    """Return a connection string, read from the environment for `env:NAME`.

    :param name: of the option or argument, for the message.
    :raises UsageError: when the variable is not set.
    """
    if not given.startswith("env:"):
        return given
    variable = given.removeprefix("env:")
    found = os.environ.get(variable, "")
    if not found:
        raise UsageError(
            f"the environment variable {variable} is not set",
            where=name,
            hint=f"{variable}='host=… dbname=… user=…', and the password in PGPASSWORD or a passfile",
        )
    return found


def _declared_facts(given: Sequence[str]) -> dict[str, str]:
    facts: dict[str, str] = {}
    for text in given:
        fact, separator, value = text.partition("=")
        if not separator or not value:
            raise UsageError(
                f"--declared: found {text!r}, expected FACT=VALUE", hint="--declared pool_mode=transaction"
            )
        if fact not in FACTS:
            raise UsageError(f"--declared: unknown fact {fact!r}", hint=nearest(fact, FACTS))
        if facts.setdefault(fact, value) != value:
            raise ConfigError(f"--declared: {fact} is declared twice, as {facts[fact]!r} and as {value!r}")
    return facts


def _print(found: Recognition, invocation: Invocation, *, as_json: bool) -> None:
    if as_json:
        document = {"elapsed_ms": found.elapsed_ms, "findings": msgspec.to_builtins(found.findings)}
        sys.stdout.write(invocation.redactor(json.dumps(document, ensure_ascii=False)) + "\n")
        return
    rows = [("fact", "value", "confidence", "how")]
    rows += [(finding.fact, finding.value or "-", finding.confidence.value, finding.how) for finding in found.findings]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        sys.stdout.write(invocation.redactor("  ".join([*cells, row[3]])) + "\n")
