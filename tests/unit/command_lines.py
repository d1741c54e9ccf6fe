"""Command lines parsed as the harness parses them, without running anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from harness.cli.main import root

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def parse(words: Sequence[str], command: click.Command = root) -> click.Context:
    """Parse a command line without the name of the program.

    :raises click.UsageError: for one that the harness does not understand.
    """
    if isinstance(command, click.Group) and words and words[0] in command.commands:
        return parse(words[1:], command.commands[words[0]])
    return command.make_context(command.name, list(words))


def commands(group: click.Group = root) -> Iterator[tuple[str, click.Command]]:
    """Return every command that does something, with its name: `audit install`."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from ((f"{name} {inner}", found) for inner, found in commands(command))
        else:
            yield name, command
