"""Click's commands and options, extended: sections and examples in `--help`, options that take several values."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator, MutableMapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import click

from harness.cli.summaries import summary_of
from harness.config import close_to

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

OTHER = "Other options"
#: columns; a wider terminal does not make sentences easier to read
_HELP_WIDTH = 100
_LONGEST_NAME = 30


class Option(click.Option):
    """An option in a section of the help text.

    :param section: heading in `--help`.
    :param several: one name takes several values, as in `--from A B C`; the option may be repeated as well.
    """

    def __init__(self, *declarations: Any, section: str = OTHER, several: bool = False, **attributes: Any) -> None:
        if several:
            attributes["multiple"] = True
        super().__init__(*declarations, **attributes)
        self.section = section
        self.several = several

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        """Convert the value; reject an option where a value is expected, as in `--check --dry-run`."""
        names = {name for parameter in ctx.command.params for name in option_names(parameter)}
        for text in value if isinstance(value, list | tuple) else (value,):
            if isinstance(text, str) and text in names:
                raise click.BadOptionUsage(
                    self.opts[0], f"option {self.opts[0]!r} requires an argument, found the option {text!r}", ctx
                )
        return super().type_cast_value(ctx, value)


class Command(click.Command):
    """A command with sections of options, examples and exit codes in its help text.

    :param section: heading of the command in the help text of its group.
    :param examples: complete command lines.
    :param exit_codes: code and meaning, for commands whose codes differ from the general ones.
    """

    def __init__(
        self,
        *arguments: Any,
        section: str = "Commands",
        examples: Sequence[str] = (),
        exit_codes: Sequence[tuple[str, str]] = (),
        **attributes: Any,
    ) -> None:
        attributes.setdefault(
            "context_settings", {"max_content_width": _HELP_WIDTH, "help_option_names": ["-h", "--help"]}
        )
        super().__init__(*arguments, **attributes)
        self.section = section
        self.examples = tuple(examples)
        self.exit_codes = tuple(exit_codes)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        several = {
            name
            for parameter in self.params
            if isinstance(parameter, Option) and parameter.several
            for name in parameter.opts
        }
        try:
            return super().parse_args(ctx, _one_value_each(args, several))
        except click.UsageError as error:
            error.ctx = error.ctx or ctx  # the parser of options leaves it out
            raise

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options by section, the general ones last."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if isinstance(parameter, click.Option) and record:
                sections.setdefault(getattr(parameter, "section", OTHER), []).append(record)
        general = sections.pop(OTHER, [])
        for heading, rows in (*sections.items(), (OTHER, general)):
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows, col_max=_LONGEST_NAME)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.examples:
            with formatter.section("Examples"):
                for example in self.examples:
                    formatter.write(f"  {example}\n")
        if self.exit_codes:
            with formatter.section("Exit codes"):
                formatter.write_dl(self.exit_codes)
        super().format_epilog(ctx, formatter)


class Entry(NamedTuple):
    """A command in the help text of its group, which is printed without importing the command."""

    name: str
    #: module and variable: `harness.cli.verify:verify`
    place: str

    def in_help(self) -> tuple[str, str]:
        """Return the section and the summary of the command in the help text of its group."""
        return summary_of(self.place) or in_help(self.load())

    def load(self) -> click.Command:
        """Import the command. In a new process, the garbage collector begins only now, and leaves out what is there."""
        module, _, variable = self.place.partition(":")
        command: click.Command = getattr(import_module(module), variable)
        if not gc.isenabled():
            gc.freeze()
            gc.enable()
        return command


class LazyCommands(MutableMapping[str, click.Command]):
    """Commands by name. The module of a command is imported when the command is looked up."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.entries = {entry.name: entry for entry in entries}
        self._loaded: dict[str, click.Command] = {}

    def __getitem__(self, name: str) -> click.Command:
        if name not in self._loaded:
            self._loaded[name] = self.entries[name].load()
        return self._loaded[name]

    def __setitem__(self, name: str, command: click.Command) -> None:
        raise TypeError(f"cannot add {name}: the entries of this group are complete")

    def __delitem__(self, name: str) -> None:
        raise TypeError(f"cannot remove {name}: the entries of this group are complete")

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


class Group(Command, click.Group):
    """A command with commands of its own, listed by section in the order in which they were added.

    :param entries: commands that are imported when they are looked up, instead of `commands`.
    """

    def __init__(self, *arguments: Any, entries: Sequence[Entry] = (), **attributes: Any) -> None:
        if entries:
            attributes["commands"] = LazyCommands(entries)
        # the callback reports a missing command, because click would print the help text as the error
        attributes.setdefault("callback", _require_command)
        super().__init__(
            *arguments, invoke_without_command=True, subcommand_metavar="COMMAND [ARGUMENTS]...", **attributes
        )

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(self.commands)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_commands(ctx, formatter)
        Command.format_options(self, ctx, formatter)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            section, summary = self._in_help(name)
            sections.setdefault(section, []).append((name, summary))
        for heading, rows in sections.items():
            with formatter.section(heading):
                formatter.write_dl(rows)

    def _in_help(self, name: str) -> tuple[str, str]:
        """Return the section and the summary of a command."""
        if isinstance(self.commands, LazyCommands):
            return self.commands.entries[name].in_help()
        return in_help(self.commands[name])


def in_help(command: click.Command) -> tuple[str, str]:
    """Return the section and the summary of a command in the help text of its group."""
    return getattr(command, "section", "Commands"), command.get_short_help_str(limit=_HELP_WIDTH * 2)


@click.pass_context
def _require_command(ctx: click.Context) -> None:
    if ctx.invoked_subcommand is None and isinstance(ctx.command, click.Group):
        raise click.UsageError(f"missing command, expected {one_of(ctx.command.commands)}", ctx)


class OneOf(click.Choice[str]):
    """One of several names; a near name is suggested."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value not in self.choices:
            near = close_to(str(value), self.choices)
            self.fail(f"found {value!r}, expected {one_of(self.choices)}" + (f"; {near}" if near else ""), param, ctx)
        return str(value)


class WholeNumber(click.ParamType[int]):
    """A whole number, within bounds where they are given."""

    name = "number"

    def __init__(self, least: int | None = None, most: int | None = None) -> None:
        self._least = least
        self._most = most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        expected = "a whole number"
        if self._least is not None and self._most is not None:
            expected += f" from {self._least} to {self._most}"
        try:
            number = int(value)
        except ValueError:
            self.fail(f"found {value!r}, expected {expected}", param, ctx)
        if (self._least is not None and number < self._least) or (self._most is not None and number > self._most):
            self.fail(f"found {value!r}, expected {expected}", param, ctx)
        return number


class Duration(click.ParamType[float]):
    """A time such as `30s`, `5m` or `2h`, more than 0; a number alone is seconds."""

    name = "duration"
    _UNITS: ClassVar = {"": 1, "s": 1, "m": 60, "h": 3600}

    def __init__(self, most_s: float) -> None:
        self._most_s = most_s

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)([smh]?)", str(value).strip())
        seconds = float(found[1]) * self._UNITS[found[2]] if found else 0.0
        if not 0 < seconds <= self._most_s:
            most = f"{self._most_s / 3600:g}h"
            self.fail(f"found {value!r}, expected a time such as 30s, 5m or 2h, at most {most}", param, ctx)
        return seconds


class Seconds(click.ParamType[float]):
    """A time in seconds, more than 0."""

    name = "seconds"

    def __init__(self, most: float) -> None:
        self._most = most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            number = float(value)
        except ValueError:
            number = 0.0
        if not 0 < number <= self._most:
            self.fail(f"found {value!r}, expected seconds, more than 0 and at most {self._most:g}", param, ctx)
        return number


def one_of(names: Iterable[str]) -> str:
    """Return names as an enumeration: `a, b or c`."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def option_names(parameter: click.Parameter) -> list[str]:
    """Return the spellings of an option; nothing for an argument."""
    return [*parameter.opts, *parameter.secondary_opts] if isinstance(parameter, click.Option) else []


def _one_value_each(arguments: list[str], several: set[str]) -> list[str]:
    """Write an option of several values before each of them: `--from A B` becomes `--from A --from B`.

    Click's own options take a fixed number of values. Arguments after `--` stay as they are.
    """
    written: list[str] = []
    option = ""
    for position, argument in enumerate(arguments):
        if argument == "--":
            return [*written, *arguments[position:]]
        name = argument.partition("=")[0]
        if argument.startswith("-"):
            option = name if name in several else ""
        elif option and written[-1] != option:
            written.append(option)
        written.append(argument)
    return written
