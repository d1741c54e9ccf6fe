"""The settings and services of a command, and the decorator that turns a function into a command."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import click
from msgspec import Struct

from harness.cli.parser import Command
from harness.cli.settings import Settings, SettingsOptions, read_settings
from harness.cli.signals import Signals
from harness.cli.terminal import Terminal
from harness.redaction import Redactor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Services(Struct, frozen=True):
    """Output and signal handling, made once per process."""

    terminal: Terminal
    redactor: Redactor
    signals: Signals


class Invocation(Struct, frozen=True):
    """Settings and services that every command gets."""

    settings: Settings
    terminal: Terminal
    redactor: Redactor
    signals: Signals


def command(
    name: str,
    *,
    examples: Sequence[str],
    section: str = "Commands",
    exit_codes: Sequence[tuple[str, str]] = (),
) -> Callable[[Callable[..., int]], Command]:
    """Declare a command: the function gets an :class:`Invocation`, then its own options and arguments by name.

    Options that belong to :class:`SettingsOptions` are merged into the settings and not passed on. The docstring is
    the help text.
    """

    def declare(function: Callable[..., int]) -> Command:
        made = click.command(name, cls=Command, examples=examples, section=section, exit_codes=exit_codes)
        return made(_with_invocation(function))

    return declare


def _with_invocation(function: Callable[..., int]) -> Callable[..., int]:
    @functools.wraps(function)
    def call(**values: Any) -> int:
        services = click.get_current_context().find_object(Services)
        if services is None:
            raise RuntimeError("a command was invoked without Services; call harness.cli.main.main")
        given = {name: values.pop(name) for name in SettingsOptions.__struct_fields__ if name in values}
        settings = read_settings(SettingsOptions(**given))
        return function(Invocation(settings, services.terminal, services.redactor, services.signals), **values)

    return call
