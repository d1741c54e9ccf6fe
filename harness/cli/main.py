"""The command line: parse, call, print. Every error ends here, as one message and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, cast

import click

from harness.cli import completion
from harness.cli.commands import COMMANDS
from harness.cli.exit_codes import MEANINGS
from harness.cli.invocation import Services
from harness.cli.output import Stdout, discard_stdout
from harness.cli.parser import Group, Option
from harness.cli.signals import Signals
from harness.cli.terminal import Terminal
from harness.cli.usage import as_started, explained
from harness.errors import HarnessError, InterruptedRunError
from harness.passwords import login_secrets
from harness.redaction import Redactor

if TYPE_CHECKING:
    from collections.abc import Sequence

root = Group(
    "harness",
    help="Prove whether an audit trail survives the connection pooler in front of PostgreSQL.",
    examples=(
        "harness verify transaction",
        "harness report --complete",
        "harness identify env:DATABASE_URL",
        'eval "$(harness completion bash)"',
    ),
    exit_codes=MEANINGS,
    entries=COMMANDS,
    epilog="`harness completion` says how to complete names in bash, zsh and fish.",
)


def _version(_ctx: click.Context) -> str:
    """Return which code is running, as the evidence records it."""
    from harness.provenance import provenance  # noqa: PLC0415 -- it loads the metadata of packages

    code = provenance()
    commit = f"{code.commit}{', with uncommitted changes' if code.dirty else ''}" if code.commit else "not a checkout"
    return "\n".join(
        (
            f"pooler-harness {code.tool_version}",
            f"commit         {commit}",
            f"fingerprint    {code.fingerprint}",
            f"Python         {code.python}",
            f"psycopg        {code.psycopg}",
        )
    )


click.custom_version_option(
    _version, cls=Option, help="Show the versions of the harness, its commit, Python and psycopg, and exit."
)(root)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; an error for users is printed, never raised.

    :param arguments: without the name of the program; those of the process by default.
    """
    if sys.stdout is None:  # closed by the caller, as in `harness verify >&-`
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 -- open until the process ends
    stdout = sys.stdout
    redactor = Redactor()
    terminal = Terminal(lambda text: as_started(redactor(text), _program(), root.commands))
    signals = Signals(terminal.say)
    given = sys.argv[1:] if arguments is None else list(arguments)
    # imported before the handlers are in place: an exception in the middle of an import could be lost
    root.commands.get(next((word for word in given if not word.startswith("-")), ""))
    try:
        signals.install()
        try:
            sys.stdout = cast("TextIO", Stdout(stdout, redactor.by_value))
            redactor.learn(*login_secrets(given, os.environ))
            code = _exit_code(given, Services(terminal, redactor, signals))
        finally:
            terminal.close()
            sys.stdout = stdout
            signals.restore()
    except InterruptedRunError as error:  # the first signal arrived while an error was printed, or after the command
        return error.exit_code
    return InterruptedRunError.exit_code if signals.received else code


def _exit_code(arguments: list[str], services: Services) -> int:
    """Run one command, print its error, and return the exit code."""
    terminal = services.terminal
    try:
        code = _run(arguments, services)
        sys.stdout.flush()
    except HarnessError as error:
        terminal.close()
        terminal.say(f"harness: {error}", "bold red")
        return error.exit_code
    except OSError as error:
        terminal.close()
        terminal.say(f"harness: {error.filename or 'the output'}: {error.strerror or error}", "bold red")
        discard_stdout()
        return HarnessError.exit_code
    except Exception:  # noqa: BLE001 -- exit code 1 would claim that a check found an Issue
        terminal.close()
        terminal.say("harness: internal error, please report it\n" + traceback.format_exc())
        return HarnessError.exit_code
    return code


def _run(arguments: list[str], services: Services) -> int:
    """Parse the arguments and run the command.

    :meth:`click.Command.main` would exit with 1 when the reader of stdout leaves, and print errors in its own form.

    :raises UsageError: for arguments that click rejects.
    """
    program = _program()
    answered = completion.answer_shell(root, program)
    if answered is not None:
        return answered
    try:
        with root.make_context(program, arguments, obj=services) as ctx:
            code: int = root.invoke(ctx)
    except click.exceptions.Exit as request:  # of --help and --version
        return request.exit_code
    except click.UsageError as error:
        raise explained(error, arguments) from None
    return code


def _program() -> str:
    """Return the name under which a user started this process, for help texts and hints."""
    started = Path(sys.argv[0]) if sys.argv else Path()
    if (started.parent.name, started.name) == ("harness", "__main__.py"):
        return "python -m harness"
    return started.name if started.name in completion.SCRIPTS else completion.SCRIPTS[0]
