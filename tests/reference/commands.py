"""Every command of the harness, with its arguments, options, examples and exit codes."""

from __future__ import annotations

import re
from itertools import groupby
from typing import TYPE_CHECKING

import click

from harness.cli.main import root
from harness.cli.parser import OTHER, Command, in_help
from harness.report.escape import code
from tests.reference.markdown import page, paragraphs, prose, table

if TYPE_CHECKING:
    from collections.abc import Iterator

_INTRODUCTION = """
`harness`, `pooler-harness` and `python -m harness` are the same program. `harness COMMAND --help` prints the same text.
A command that lists no exit codes has the general ones: [Reference](../reference.md#exit-codes).
"""


def document() -> str:
    found = [(f"harness {name}", command, section) for name, command, section in _commands(root)]
    parts = []
    for section, members in groupby(found, key=lambda entry: entry[2]):
        parts += [f"## {section}", *(_command(name, command) for name, command, _ in members)]
    return page("Commands", _INTRODUCTION.strip(), *parts)


def _commands(group: click.Group, before: str = "", section: str = "") -> Iterator[tuple[str, click.Command, str]]:
    """Yield the commands by their full names, each with the section of the command at the top."""
    for name, command in group.commands.items():
        heading = section or in_help(command)[0]
        if isinstance(command, click.Group):
            yield from _commands(command, f"{before}{name} ", heading)
        else:
            yield f"{before}{name}", command, heading


def _command(name: str, command: click.Command) -> str:
    # with the settings of the command: click makes its help option once, from the first context
    context = click.Context(command, info_name=name, **command.context_settings)
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    arguments = [
        row
        for parameter in command.params
        if isinstance(parameter, click.Argument) and (row := _row(parameter, context))
    ]
    parts = [
        f"### {name}",
        f"```text\n{usage}\n```",
        paragraphs(command.help or ""),
        table(("Argument", "Meaning"), arguments) if arguments else "",
        _options(command, context),
    ]
    if isinstance(command, Command):
        if command.examples:
            parts.append("```sh\n" + "\n".join(command.examples) + "\n```")
        if command.exit_codes:
            parts.append(table(("Exit code", "Meaning"), [(value, prose(text)) for value, text in command.exit_codes]))
    return "\n\n".join(filter(None, parts))


def _options(command: click.Command, context: click.Context) -> str:
    """Return the table of options, by section as in `--help`; the option `--help` itself is left out."""
    sections: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.params:
        if isinstance(parameter, click.Option) and (row := _row(parameter, context)):
            sections.setdefault(getattr(parameter, "section", OTHER), []).append(row)
    rows = [(name, *row) for name, members in sections.items() for row in members]
    return table(("Section", "Option", "Meaning"), rows) if rows else ""


def _row(parameter: click.Parameter, context: click.Context) -> tuple[str, str] | None:
    """Return what `--help` prints for an option or an argument; None if it is hidden."""
    record = parameter.get_help_record(context)
    return (code(re.sub(r"\s+", " ", record[0])), prose(record[1])) if record else None
