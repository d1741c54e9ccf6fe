"""Click's usage errors as errors of the harness: one sentence, near names, and the help text to read next."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

import click

from harness.cli.parser import one_of, option_names
from harness.config import close_to
from harness.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def explained(error: click.UsageError, arguments: Sequence[str]) -> UsageError:
    """Return the error with what was found, what is close to it, and a hint.

    :param arguments: the arguments of the process; those that name a command are part of the message.
    """
    ctx = error.ctx
    return UsageError(_sentence(error, arguments), hint=f"{ctx.command_path} --help" if ctx else "")


def as_started(text: str, program: str, commands: Iterable[str]) -> str:
    """Return a text whose hints name the program as the user started it, such as `python -m harness reap`.

    :param commands: names of all commands; `harness` before another word is not the program.
    """
    return re.sub(rf"(?<!-m )(?<![\w/.-])harness (?=(?:{'|'.join(map(re.escape, commands))})\b)", f"{program} ", text)


def _sentence(error: click.UsageError, arguments: Sequence[str]) -> str:
    match error:
        case click.NoSuchOption():
            return f"no such option {error.option_name}" + _near_option(error, arguments)
        case click.NoSuchCommand():
            commands = error.ctx.command.commands if error.ctx and isinstance(error.ctx.command, click.Group) else {}
            return f"no such command {error.command_name!r}" + _suffix(close_to(error.command_name, commands))
        case click.MissingParameter(param=click.Parameter() as parameter):
            return f"missing {parameter.param_type_name} {_name(parameter, error.ctx)}"
        case click.BadParameter(param=click.Argument(type=click.Choice())):
            return error.message  # it lists the names, as the usage does in place of a name for the argument
        case click.BadParameter(param=click.Parameter() as parameter):
            return f"{_name(parameter, error.ctx)}: {error.message}"
    message = error.format_message().rstrip(".")
    return message[:1].lower() + message[1:]


def _near_option(error: click.NoSuchOption, arguments: Sequence[str]) -> str:
    """Return a near name, or where the option belongs when it was given before the command."""
    if error.ctx is None:
        return ""
    command = error.ctx.command
    # compared without the dashes, which make short names look alike
    names = {
        name.lstrip("-"): name
        for parameter in command.get_params(error.ctx)
        if not getattr(parameter, "hidden", False)
        for name in option_names(parameter)
    }
    if close := difflib.get_close_matches(error.option_name.lstrip("-"), names):
        return f"; did you mean {one_of(names[name] for name in close)}?"
    if isinstance(command, click.Group):
        typed = [argument for argument in arguments if argument in command.commands]
        for name in typed or command.commands:
            if any(error.option_name in option_names(parameter) for parameter in command.commands[name].params):
                return f"; options follow the command: {error.ctx.command_path} {name} {error.option_name}"
    return ""


def _suffix(near: str) -> str:
    return f"; {near}" if near else ""


def _name(parameter: click.Parameter, ctx: click.Context | None) -> str:
    if isinstance(parameter, click.Option):
        return max(parameter.opts, key=len)
    return (parameter.make_metavar(ctx) if ctx else parameter.human_readable_name).strip("[].")
