"""Which commands of a script decide its exit code, and whose failure gets lost.

Bash's manual defines when `set -e` ends a shell: not for a command before `&&` or `||`, in a condition, behind `!`, or
before the last `|` of a pipe without `set -o pipefail`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from harness.gates.shell_rules import (
    Fate,
    Options,
    bodies_of,
    branches_succeed,
    ends_with_failure,
    fails_then,
    first_words,
    flat,
    inside_fate,
    keeps_status,
    notes_result,
    simple_of,
    succeeds,
    trap_fate,
)
from harness.gates.shell_syntax import AndOr, Compound, Part, Pipeline, Simple, parse_script
from harness.gates.shell_words import UnreadableScriptError

if TYPE_CHECKING:
    from collections.abc import Iterator

_ASSIGNMENT = re.compile(r"(?:export |local |declare )?([A-Za-z_]\w*)=(.*)", re.DOTALL)
#: functions that call each other
_DEEPEST_CALLS = 4
#: scripts that set up tools, and leave the options of the shell
_OF_TOOLS = frozenset({"nvm.sh", "conda.sh", "sdkman-init.sh"})
_GOES_ON = "the script goes on after its failure: `set -e` is off"
#: what may run more than once, or never
_REPEATED = {"function": "function", **dict.fromkeys(("for", "while", "until", "select"), "loop")}


class Ran(Struct, frozen=True):
    """A command of a script. `lost` says why its failure does not fail the script, `unclear` why it may not."""

    words: tuple[str, ...]
    line: int
    lost: str = ""
    unclear: str = ""
    #: names of the functions that it is a part of
    functions: tuple[str, ...] = ()
    #: its here-document
    document: str = ""
    #: whether an `if` looks at its exit code, so that the branches decide
    decides: bool = False
    #: whether its output is an argument of another command
    for_output: bool = False
    #: whether `set -e` and `set -o pipefail` are on there, for what it runs in the same shell
    errexit: bool = False
    pipefail: bool = False


def commands_of(text: str, first_line: int, *, errexit: bool, pipefail: bool) -> list[Ran]:
    """Return the commands of a script, each with what happens to its failure.

    :param errexit: whether the shell starts with `set -e`.
    :param pipefail: whether it starts with `set -o pipefail`.
    :raises UnreadableScriptError: when the text is not read as shell.
    """
    statements = parse_script(text, first_line)
    reader = _Reader(text, Options(errexit, pipefail), bodies_of(statements))
    try:
        found = list(reader.of_list(statements, Fate(), is_last=True, depth=0))
    except RecursionError:
        raise UnreadableScriptError("nested too deep") from None
    for _ in range(_DEEPEST_CALLS):
        calls: dict[str, list[Ran]] = {}
        for ran in found:
            calls.setdefault(ran.words[0], []).append(ran)
        fates = {name: _of_calls(name, of_name, reader.unguarded) for name, of_name in calls.items()}
        found = [_as_called(ran, fates) for ran in found]
    return found


def _as_called(ran: Ran, fates: dict[str, Fate]) -> Ran:
    """Return a command of a function with the fate of the function's calls."""
    fate = Fate(ran.lost, ran.unclear)
    for name in ran.functions:
        not_called = Fate(unclear=f"no command of this script calls its function {name}")
        fate = fate.within(fates.get(name, not_called))
    return replace(ran, lost=fate.lost, unclear=fate.unclear)


def _of_calls(name: str, calls: list[Ran], unguarded: set[str]) -> Fate:
    """Return what happens to the failure of a function: lost when each call loses it, unclear when one does."""
    if all(call.lost for call in calls):
        return Fate(lost=calls[0].lost)
    why = next((call.lost or call.unclear for call in calls if call.lost or call.unclear), "")
    if not why and name in unguarded:
        why = f"`set -e` has no effect in {name}, which is called in a condition"
    return Fate(unclear=why)


def _if_it_ends(fate: Fate) -> Fate:
    """Return a fate without that of a script that goes on."""
    lost = "" if fate.lost == _GOES_ON else fate.lost
    return Fate(lost, "" if fate.unclear.startswith(_GOES_ON) else fate.unclear)


class _Reader:
    def __init__(self, text: str, options: Options, bodies: dict[str, list[tuple[str, ...]]]) -> None:
        self._text = text
        self._bodies = bodies
        #: what a trap does to the failure of the commands after it
        self._trap = Fate()
        self._options = options
        #: the last script that was read with `source`, if it may be one of the project
        self._sourced = ""
        self._functions: tuple[str, ...] = ()
        #: commands before `&&` and `||` and in conditions: if one is a function, `set -e` has no effect inside of it
        self.unguarded: set[str] = set()

    def of_list(self, statements: tuple[AndOr, ...], outer: Fate, *, is_last: bool, depth: int) -> Iterator[Ran]:
        for number, statement in enumerate(statements):
            later = statements[number + 1 :]
            yield from self._of_statement(statement, later, outer, is_last=is_last and not later, depth=depth)
            if not statement.operators and first_words((statement,))[:1] == ["exit"]:
                return  # nothing after it runs

    def _of_statement(
        self, statement: AndOr, later: tuple[AndOr, ...], outer: Fate, *, is_last: bool, depth: int
    ) -> Iterator[Ran]:
        options = self._options
        for position, pipeline in enumerate(statement.pipelines):
            is_final = position == len(statement.pipelines) - 1
            fate = self._in_statement(statement, position, later, is_last=is_last, depth=depth).within(outer)
            if statement.background:
                fate = self._in_background().within(outer)
            errexit = options.errexit
            if not is_final:  # `set -e` has no effect inside of it
                if errexit:
                    self.unguarded.update(words[0] for words, _ in simple_of(pipeline))
                options.errexit = False
            yield from self._of_pipeline(pipeline, fate, is_last=is_last or not is_final, depth=depth)
            if not is_final:
                options.errexit = errexit

    def _in_statement(  # noqa: PLR0911 -- one for each rule of the shell
        self, statement: AndOr, position: int, later: tuple[AndOr, ...], *, is_last: bool, depth: int
    ) -> Fate:
        operators = statement.operators[position:]
        if "||" in operators:
            return self._alternative(statement.pipelines[position + operators.index("||") + 1], is_last=is_last)
        if is_last or (self._options.errexit and not operators):
            return Fate()
        if self._is_kept(later):
            return Fate()
        if self._options.errexit:
            return Fate(lost="`set -e` ignores the failure of a command before `&&`, and the script goes on")
        if depth:
            return Fate(unclear="`set -e` is off in a function, a branch or a loop")
        if any("$?" in word or "PIPESTATUS" in word for word in first_words(later[:1])):
            return Fate(unclear="the next command looks at its exit code")
        return self._unless_sourced(_GOES_ON)

    def _is_kept(self, later: tuple[AndOr, ...]) -> bool:
        """Say whether the next command keeps the exit code for an `exit`."""
        words = first_words(later[:1])
        if words in (["exit"], ["return"]) or words[:2] in (["exit", "$?"], ["return", "$?"]):
            return True
        match = _ASSIGNMENT.fullmatch(" ".join(words[:2] if words[:1] in (["export"], ["local"]) else words[:1]))
        return bool(match) and "$?" in match[2] and self._exits_with(match[1]) if match else False

    def _exits_with(self, variable: str) -> bool:
        return bool(re.search(rf"\b(?:exit|return)\s+\"?\$\{{?{re.escape(variable)}\b", self._text))

    def _alternative(  # noqa: PLR0911 -- one for each way to go on
        self, pipeline: Pipeline, *, is_last: bool
    ) -> Fate:
        """Return what happens to a failure on the left of `||`."""
        commands = [pipeline.commands[0]]
        if isinstance(commands[0], Compound) and commands[0].kind in {"{", "("}:
            commands = [
                command
                for statement in commands[0].parts[0].body
                for inner in statement.pipelines
                for command in inner.commands
            ]
        words = [command.words for command in commands if isinstance(command, Simple) and command.words]
        if words and keeps_status(words[0]):
            return Fate()
        if any(ends_with_failure(found) and not keeps_status(found) for found in words):
            return Fate()
        if words and keeps_status(words[-1]):  # the exit code of the command before it
            words = words[:-1]
        last = words[-1] if words else ("",)
        shown = " ".join(last)[:40]
        if last == ("false",):
            return Fate() if self._options.errexit or is_last else Fate(unclear=f"`|| {shown}` without `set -e`")
        if (match := _ASSIGNMENT.fullmatch(last[0])) and len(last) == 1 and match[2].strip("0"):
            kept = self._exits_with(match[1])
            return Fate() if kept else Fate(unclear=f"`|| {shown}` keeps its failure in a variable")
        if any(map(notes_result, words)):
            return Fate(unclear=f"`|| {shown}` leaves its failure to a later step")
        if succeeds(last):
            return Fate(lost=f"`|| {shown}` hides its failure")
        return Fate(unclear=f"`|| {shown}` runs after its failure")

    def _of_pipeline(self, pipeline: Pipeline, fate: Fate, *, is_last: bool, depth: int) -> Iterator[Ran]:
        for number, command in enumerate(pipeline.commands):
            inner = fate
            if number < len(pipeline.commands) - 1 and not self._options.pipefail:
                inner = self._before_pipe().within(fate)
            if pipeline.negated and not inner.unclear:
                inner = Fate(lost="`!` inverts its exit code").within(inner)
            if isinstance(command, Compound):
                yield from self._of_compound(command, inner, is_last=is_last, depth=depth)
            elif command.words:
                yield from self._of_simple(command, inner, depth)

    def _of_simple(self, command: Simple, fate: Fate, depth: int) -> Iterator[Ran]:
        words = command.words
        if words[0] == "set":
            self._options.update(words)
        elif words[0] in {"source", "."} and len(words) > 1:
            name = words[1].rpartition("/")[2]
            self._sourced = name if name.endswith((".sh", ".bash")) and name not in _OF_TOOLS else self._sourced
        elif words[0] == "trap":
            self._trap = trap_fate(words, self._bodies) or self._trap
        fate = fate.within(self._trap)
        ran = Ran(words, command.line, fate.lost, fate.unclear, self._functions, command.document)
        yield replace(ran, errexit=self._options.errexit, pipefail=self._options.pipefail)
        if not command.inner:
            return
        options = Options(self._options.errexit, self._options.pipefail)
        self._options.errexit = False  # Bash switches it off in `$(…)`
        inner = inside_fate(words).within(fate)
        for script in command.inner:
            found = self.of_list(parse_script(script, command.line), inner, is_last=True, depth=depth)
            yield from (replace(ran, for_output=bool(inner.lost or inner.unclear)) for ran in found)
        self._options = options

    def _in_background(self) -> Fate:
        if re.search(r"\bwait\s+(?:-\w+|[\"'$%\d])", self._text):
            return Fate(unclear="it runs in the background, and whether `wait` returns its exit code is not known")
        return Fate(lost="`&` runs it in the background, and nothing waits for its exit code")

    def _before_pipe(self) -> Fate:
        if "PIPESTATUS" in self._text:
            return Fate(unclear="the pipe hides its failure, unless the script looks at it in PIPESTATUS")
        return self._unless_sourced("the pipe hides its failure: `set -o pipefail` is off")

    def _unless_sourced(self, lost: str) -> Fate:
        unclear = f"{lost}, unless {self._sourced}, which is read with `source`, switches it on"
        return Fate(unclear=unclear) if self._sourced else Fate(lost=lost)

    def _of_compound(self, compound: Compound, fate: Fate, *, is_last: bool, depth: int) -> Iterator[Ran]:
        deeper = depth + (compound.kind not in {"{", "("})
        options = Options(self._options.errexit, self._options.pipefail)
        functions = self._functions
        self._functions += (compound.name,) if compound.kind == "function" else ()
        for position, part in enumerate(compound.parts):
            if part.is_condition and self._options.errexit:
                self.unguarded.update(words[0] for words, _ in flat(part))
            if part.is_condition and (branch := fails_then(compound, position)):  # `if ! check; then exit 1; fi`
                left = _if_it_ends(fate) if branch == "exit" else fate
                pipefail = self._options.pipefail
                yield from (
                    Ran(words, line, left.lost, left.unclear, self._functions, decides=True, pipefail=pipefail)
                    for words, line in flat(part)
                )
                continue
            if part.is_condition and compound.kind == "if":
                left = _if_it_ends(fate)  # a branch may keep it
                inner = self._in_compound(compound, part).within(left)
                found = self.of_list(part.body, inner, is_last=True, depth=deeper)
                yield from (replace(ran, decides=True) for ran in found)
                continue
            outer = Fate() if compound.kind == "function" else fate  # its calls have a fate, not its definition
            inner = self._in_compound(compound, part).within(outer)
            yield from self.of_list(part.body, inner, is_last=is_last or part.is_condition, depth=deeper)
        self._functions = functions
        if compound.kind == "(":
            self._options = options

    def _in_compound(self, compound: Compound, part: Part) -> Fate:
        if part.is_condition and compound.kind == "if" and branches_succeed(compound):
            return Fate(lost="`if` hides its failure: no branch fails")
        if part.is_condition:
            return Fate(unclear=f"its exit code decides `{compound.kind}`")
        if self._options.errexit or compound.kind not in _REPEATED:
            return Fate()
        return Fate(unclear=f"it runs in a {_REPEATED[compound.kind]}, and `set -e` is off")
