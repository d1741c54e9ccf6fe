"""`exec`: any command, in any language, behind a topology. Its output on stdout, the recap on stderr."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from shlex import join
from typing import TYPE_CHECKING, Any

from harness.cli.arguments import seconds_up_to
from harness.cli.filling import fill
from harness.cli.planning import chosen_options, evidence_here, exec_command, named_topologies
from harness.cli.recap import exit_code, say_issues, say_where
from harness.cli.verify import execute
from harness.errors import UsageError
from harness.host.declarations import CommandDeclaration
from harness.host.env_secrets import secrets_of
from harness.host.junit_verdict import require_patterns
from harness.suites.commands import command_checks

if TYPE_CHECKING:
    from argparse import Namespace, _SubParsersAction

    from harness.cli.context import Context
    from harness.store import StoredRun

_LONGEST_NAME = 40
#: of a command that its row is named by
_WORDS = 3
_DEADLINE_S = 600.0
_LONGEST_S = 7200


def add_command(commands: _SubParsersAction[Any]) -> Any:
    """Add `exec`; the options that choose servers are added by the caller."""
    command = commands.add_parser(
        "exec",
        help="run a command behind a topology: exec TOPOLOGY -- mix test",
        description="Stands a topology up, runs a command with the chain's address in the environment variables that "
        "its ecosystem reads (PG*, DATABASE_URL, DB_*; with DIRECT_ before them the server itself), and records how it "
        "ended as evidence. The database is empty, and the command's role owns it.",
        allow_abbrev=False,
    )
    command.add_argument("topology", metavar="TOPOLOGY")
    command.add_argument("command_line", nargs="+", metavar="COMMAND", help="after --")
    command.add_argument("--name", help="of its row in the parity table (default: from the command)")
    command.add_argument(
        "--junit", action="append", default=[], metavar="GLOB", help="JUnit XML that it writes; may be repeated"
    )
    command.add_argument(
        "--deadline",
        type=seconds_up_to(_LONGEST_S),
        default=_DEADLINE_S,
        metavar="S",
        help="for the command (default: 600)",
    )
    command.set_defaults(run=run)
    return command


def run(context: Context, arguments: Namespace) -> int:
    """Run the command, record it, and return what its row comes to."""
    settings = context.settings
    topologies = named_topologies(settings, [arguments.topology])
    require_patterns(arguments.junit)
    declared = CommandDeclaration(
        name=_name(arguments.name, arguments.command_line),
        title=f"{join(arguments.command_line)} passes"[:300],
        command=tuple(arguments.command_line),
        junit=tuple(arguments.junit),
        deadline_s=arguments.deadline,
    )
    if any(each.name == declared.name for each in settings.commands):
        raise UsageError(
            f"--name: {declared.name} is a command of harness.toml",
            hint=f"nox -s topology-{arguments.topology} -- --check command.{declared.name}",
        )

    context.redactor.learn(*secrets_of(os.environ, settings.environments.values(), settings.paths))

    def say(line: str) -> None:
        sys.stdout.write(context.redactor(line))
        sys.stdout.flush()

    made = command_checks([declared], say)
    catalogue = settings.catalogue.with_checks(made)
    options = f" --name {declared.name}" + "".join(f" --junit {join([each])}" for each in declared.junit)
    options += f" --deadline {declared.deadline_s:g}" if declared.deadline_s != _DEADLINE_S else ""
    options += f" --engine {settings.engine}" if settings.engine != "auto" else ""
    options += chosen_options(settings)
    done = execute(
        context,
        topologies,
        catalogue,
        catalogue.select((), [f"command.{declared.name}"]),
        named=True,
        reproduce=exec_command(topologies[0].name.partition("+")[0], declared.command, options),
    )
    paths = fill(evidence_here(settings), settings)
    _say_how_it_ended(context, done)
    say_where(context, done.folder, paths)
    say_issues(context, [done])
    return exit_code(context, [done], strict=True)


def _name(given: str | None, command: list[str]) -> str:
    if given is not None:
        if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", given) or len(given) > _LONGEST_NAME:
            raise UsageError(f"--name: found {given!r}, needed lower case words with dashes, such as mix-test")
        return given
    told = [command[0].rpartition("/")[2], *(each for each in command[1:] if re.fullmatch(r"[\w./:-]{1,20}", each))]
    words = re.findall(r"[a-z0-9]+", " ".join(told[:_WORDS]).lower())
    name = "-".join(words)[:_LONGEST_NAME].strip("-") or "command"
    if told[:_WORDS] != command:  # another command of the same first words has a row of its own
        name += f"-{hashlib.sha256(join(command).encode()).hexdigest()[:6]}"
    return name if name[0].isalpha() else f"run-{name}"


def _say_how_it_ended(context: Context, done: StoredRun) -> None:
    for each in done.answers():
        tests = f", {each.facts['tests']} tests" if "tests" in each.facts else ""
        context.terminal.say(
            f"{each.target}: {each.check} {each.status} after {each.duration_ms / 1000:.1f} s{tests}"
        )
