"""`exec`: run any command, in any language, behind a topology. Its output is on stdout, the recap on stderr."""

from __future__ import annotations

import hashlib
import os
import re
from shlex import join
from typing import TYPE_CHECKING

import click

from harness.cli import completion, options
from harness.cli.evidence import evidence_here
from harness.cli.exit_codes import exit_code, rows_of
from harness.cli.filling import fill
from harness.cli.invocation import Invocation, command
from harness.cli.named_topologies import named_topologies, require_used
from harness.cli.output import command_stream
from harness.cli.parser import OneOf, Seconds
from harness.cli.planning import chosen_options, exec_command
from harness.cli.recap import say_issues, say_where
from harness.cli.repeating import say_attempts
from harness.cli.running import command_teardown, run_selection
from harness.cli.selection import Selection
from harness.errors import UsageError
from harness.host.declarations import DEFAULT_COMMAND_ROLE, CommandDeclaration
from harness.host.env_secrets import secrets_of
from harness.host.junit_verdict import require_patterns
from harness.lab.credentials import COMMAND_ROLES, CommandRole
from harness.model import Status
from harness.printable import one_line
from harness.redaction import RedactedStream
from harness.suites.commands import LEFT_BEHIND, NOTES, command_checks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.cli.settings import Settings
    from harness.model import Result, Topology

_LONGEST_NAME = 40
_LONGEST_TITLE = 300
#: words of a command that the name of its row is made of
_WORDS = 3
_DEADLINE_S = 600.0
_LONGEST_S = 7200


@command(
    "exec",
    section="Your own systems",
    examples=(
        "harness exec transaction -- mix test",
        "harness exec transaction --junit '_build/test/lib/*/*.xml' -- mix test",
        "harness exec transaction --role superuser -- make installcheck",
        "harness exec session --name api-tests --deadline 1200 -- pytest tests/api",
    ),
)
@click.argument(
    "topology", metavar="TOPOLOGY", shell_complete=completion.topology_names, help="a name from `list topologies`"
)
@click.argument("command_line", nargs=-1, required=True, metavar="COMMAND...", help="after --, with its own options")
@options.option(
    "--name", metavar="NAME", section="Command", help="of its row in the parity table; from COMMAND if absent"
)
@options.option(
    "--junit",
    multiple=True,
    metavar="GLOB",
    section="Command",
    help="JUnit XML files that the command writes; may be repeated",
)
@options.option(
    "--role",
    type=OneOf(COMMAND_ROLES),
    default=None,
    metavar="ROLE",
    section="Command",
    help=f"what the login of the command may do: app, owner, createdb or superuser (default: {DEFAULT_COMMAND_ROLE}, "
    "and a command that fails because its login is not a superuser is then Not run)",
)
@options.option(
    "--deadline",
    type=Seconds(_LONGEST_S),
    default=_DEADLINE_S,
    metavar="S",
    section="Command",
    help=f"seconds that the command may run (default: {_DEADLINE_S:g})",
)
@options.repeat
@options.running_one_command
def exec_behind(
    invocation: Invocation,
    topology: str,
    command_line: Sequence[str],
    *,
    name: str | None,
    junit: Sequence[str],
    role: CommandRole | None,
    deadline: float,
    repeat: int,
    strict: bool,  # noqa: ARG001 -- a command that did not run is never a success, with --strict or without
) -> int:
    """Run a command behind a topology.

    Starts the topology and runs the command with the address of the chain in the variables that ecosystems read: PG*,
    DATABASE_URL and DB_*; with the prefix DIRECT_ they hold the address of the server itself. The database is empty.
    The login of the command owns it, and may create databases, roles and trusted extensions, unless --role says
    otherwise. The outcome is evidence: a row of the parity table.
    """
    settings = invocation.settings
    topologies = named_topologies(settings, [topology])
    require_used(settings, topologies)
    require_patterns(junit)
    invocation.redactor.learn(*secrets_of(os.environ, settings.environments.values(), settings.paths))
    title = " ".join(f"{join(command_line)} passes".split())  # a script may have several lines
    declared = CommandDeclaration(
        name=_name(name, command_line),
        title=invocation.redactor(title)[:_LONGEST_TITLE],  # redacted first: a secret that is cut is not recognised
        command=tuple(command_line),
        junit=tuple(junit),
        role=role,
        deadline_s=deadline,
    )
    if any(other.name == declared.name for other in settings.commands):
        raise UsageError(
            f"--name: harness.toml already declares a command {declared.name!r}",
            hint=f"nox -s topology-{topology} -- --check command.{declared.name}",
        )
    invocation.signals.teardown = command_teardown()

    invocation.terminal.has_screen_alone = False
    stdout = command_stream()

    def show(text: str) -> None:
        stdout.write(text)
        stdout.flush()

    output = RedactedStream(invocation.redactor, show)
    catalogue = settings.catalogue.with_checks(command_checks([declared], output))
    selection = Selection(
        topologies=tuple(topologies),
        checks=catalogue.select((), [f"command.{declared.name}"]),
        named=True,
        repeat=repeat,
    )
    options_of = _options(declared, settings, topologies[0], repeat)
    reproduce = exec_command(topologies[0].name.partition("+")[0], declared.command, options_of)
    try:
        run = run_selection(invocation, selection, catalogue=catalogue, commands=[declared], reproduce=reproduce)
    finally:
        output.close()
    paths = fill(evidence_here(settings.of_project), settings)
    for result in run.answers():
        invocation.terminal.say(_outcome(result))
    say_attempts(invocation, run)
    say_where(invocation, run.folder, paths)
    say_issues(invocation, rows_of(run))
    return exit_code(invocation, rows_of(run), [run], strict=True)


def _options(declared: CommandDeclaration, settings: Settings, topology: Topology, repeat: int) -> str:
    """Return the options that decide the outcome, as the command that reproduces it needs them."""
    options_given = f" --name {declared.name}" + "".join(f" --junit {join([pattern])}" for pattern in declared.junit)
    options_given += f" --role {declared.role}" if declared.role else ""
    options_given += f" --deadline {declared.deadline_s:g}" if declared.deadline_s != _DEADLINE_S else ""
    options_given += f" --repeat {repeat}" if repeat > 1 else ""
    options_given += f" --engine {settings.engine}" if settings.engine != "auto" else ""
    return options_given + chosen_options(settings, topology)


def _name(given: str | None, command_line: Sequence[str]) -> str:
    """Return the name of the row: the given one, or one from the first words of the command.

    :raises UsageError: for a given name that is not in lower case with dashes.
    """
    if given is not None:
        if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", given) or len(given) > _LONGEST_NAME:
            raise UsageError(f"--name: found {given!r}, expected lower case words with dashes, such as mix-test")
        return given
    program = command_line[0].rpartition("/")[2]
    plain = [program, *(word for word in command_line[1:] if re.fullmatch(r"[\w./:-]{1,20}", word))][:_WORDS]
    name = "-".join(re.findall(r"[a-z0-9]+", " ".join(plain).lower()))[:_LONGEST_NAME].strip("-") or "command"
    if plain != list(command_line):  # commands that begin with the same words have different rows
        name += f"-{hashlib.sha256(join(command_line).encode()).hexdigest()[:6]}"
    return name if name[0].isalpha() else f"run-{name}"


def _outcome(result: Result) -> str:
    tests = f", {result.facts['tests']} tests" if "tests" in result.facts else ""
    reason = f": {result.reason}" if result.status is Status.NOT_RUN else ""
    notes = f"; {result.facts[NOTES]}" if NOTES in result.facts else ""
    notes += f"; {LEFT_BEHIND}: {result.facts[LEFT_BEHIND]}" if LEFT_BEHIND in result.facts else ""
    after = f"after {result.duration_ms / 1000:.1f} s"
    return one_line(f"{result.target}: {result.check} {result.status} {after}{reason}{tests}{notes}")
