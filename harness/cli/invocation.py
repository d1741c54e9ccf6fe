"""The settings and services of a command, and the decorator that turns a function into a command."""

from __future__ import annotations

import functools
from functools import cached_property
from typing import TYPE_CHECKING, Any

import click
from msgspec import Struct

from harness.cli.parser import Command
from harness.cli.settings_options import SettingsOptions
from harness.cli.signals import Signals
from harness.cli.terminal import Terminal
from harness.redaction import Redactor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.cli.settings import Settings


class Services(Struct, frozen=True):
    """Output and signal handling, made once per process."""

    terminal: Terminal
    redactor: Redactor
    signals: Signals


class Invocation(Struct, frozen=True, dict=True):
    """Settings and services that every command gets."""

    options: SettingsOptions
    terminal: Terminal
    redactor: Redactor
    signals: Signals

    @cached_property
    def settings(self) -> Settings:
        """What harness.toml, the environment and the options decide; read on first use.

        :raises ConfigError: for a mistake in harness.toml, or an expired entry in it.
        :raises UsageError: for an invalid option or environment variable.
        """
        from harness.cli.settings import read_settings  # noqa: PLC0415 -- it imports all suites; not every command does

        return read_settings(self.options)


def command(
    name: str,
    *,
    examples: Sequence[str],
    section: str = "Commands",
    exit_codes: Sequence[tuple[str, str]] = (),
) -> Callable[[Callable[..., int]], Command]:
    """Declare a command: the function gets an :class:`Invocation`, then its own options and arguments by name.

    Options that belong to :class:`SettingsOptions` are merged into the settings and not passed on, and `--verbose`
    belongs to the terminal. The docstring is the help text.
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
        services.terminal.verbose = values.pop("verbose", False)
        given = {name: values.pop(name) for name in SettingsOptions.__struct_fields__ if name in values}
        invocation = Invocation(SettingsOptions(**given), services.terminal, services.redactor, services.signals)
        return function(invocation, **values)

    return call
