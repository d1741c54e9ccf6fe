"""What single commands and parts of a script do to a failure: `set`, `trap`, `exit`, branches and `$(…)`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.gates.shell_syntax import AndOr, Compound, Part, Pipeline, Simple, parse_script

if TYPE_CHECKING:
    from collections.abc import Iterator

_ZERO = frozenset({"", "0", "00"})
_COMPARE = frozenset({"test", "[", "[["})
#: signals of traps that decide the exit code of a script
_ENDS = {"EXIT": "EXIT", "0": "EXIT", "ERR": "ERR"}
#: commands that succeed whatever happened before
_SUCCEED = frozenset({"true", ":", "echo", "printf"})


class Fate(Struct, frozen=True):
    """What happens to the failure of a command: nothing here means that it fails the script."""

    lost: str = ""
    unclear: str = ""

    def within(self, outer: Fate) -> Fate:
        """Return the fate of a command inside of another one."""
        return Fate(outer.lost or self.lost, outer.unclear or self.unclear)


class Options(Struct):
    """The options of a shell at one point of its script."""

    errexit: bool
    pipefail: bool

    def update(self, words: tuple[str, ...]) -> None:
        """Apply a command `set`."""
        rest = list(words[1:])
        while rest:
            flag = rest.pop(0)
            on = flag.startswith("-")
            if not re.fullmatch(r"[-+][A-Za-z]+", flag):
                continue
            if "e" in flag:
                self.errexit = on
            if flag.endswith("o") and rest:
                name = rest.pop(0)
                if name == "errexit":
                    self.errexit = on
                elif name == "pipefail":
                    self.pipefail = on


def flat(part: Part) -> Iterator[tuple[tuple[str, ...], int]]:
    for statement in part.body:
        yield from of_statement(statement)


def of_statement(statement: AndOr) -> Iterator[tuple[tuple[str, ...], int]]:
    for pipeline in statement.pipelines:
        yield from simple_of(pipeline)


def bodies_of(statements: tuple[AndOr, ...]) -> dict[str, list[tuple[str, ...]]]:
    """Return the commands of each function that a script defines, without those of its branches and loops."""
    found: dict[str, list[tuple[str, ...]]] = {}
    for statement in statements:
        for command in statement.pipelines[0].commands:
            if isinstance(command, Compound) and command.kind == "function":
                groups = command.parts[0].body[0].pipelines[0].commands
                parts = [part for group in groups if isinstance(group, Compound) for part in group.parts[:1]]
                found[command.name] = [words for part in parts for words, _ in flat(part)]
    return found


def trap_fate(words: tuple[str, ...], bodies: dict[str, list[tuple[str, ...]]]) -> Fate | None:
    """Return what a trap does to the failures after it; None for signals that do not decide the exit code.

    :param bodies: the functions of the script.
    """
    signals = sorted({_ENDS[name] for word in words[2:] if (name := word.upper().removeprefix("SIG")) in _ENDS})
    if not signals or words[1].startswith("-"):
        return Fate() if signals else None
    handler = [found for statement in parse_script(words[1]) for found, _ in of_statement(statement)]
    commands = [inner for found in handler for inner in (bodies.get(found[0]) or [found])]
    ending = next((number for number, found in enumerate(commands) if found[0] == "exit"), None)
    shown = f"`trap '{words[1][:40]}' {signals[0]}`"
    if ending is None or commands[ending] == ("exit",):
        return Fate()
    if exits_with_zero(commands[ending]):
        return Fate(lost=f"{shown} replaces its exit code")
    if commands[ending][1] == "$?" and ending:
        return Fate(unclear=f"{shown} exits with the code of a command of the trap")
    return Fate()


def branches_succeed(compound: Compound) -> bool:
    """Say whether all branches of an `if` succeed."""
    commands = [
        command
        for part in compound.parts
        if not part.is_condition
        for statement in part.body
        for pipeline in statement.pipelines
        for command in pipeline.commands
    ]
    return all(
        isinstance(command, Simple)
        and bool(command.words)
        and succeeds(command.words)
        and not command.inner
        and not notes_result(command.words)
        for command in commands
    )


def inside_fate(words: tuple[str, ...]) -> Fate:
    """Return what a command does to the failure of a `$(…)` in its words."""
    if words[0] in _COMPARE:
        return Fate(unclear="its output is compared, not its exit code")
    if all(re.match(r"[A-Za-z_]\w*(?:\[[^]]*\])?\+?=", word) for word in words):
        return Fate()  # an assignment has its exit code
    return Fate(lost=f"`{words[0][:40]}` hides the failure of a `$(…)` in its arguments")


def succeeds(words: tuple[str, ...]) -> bool:
    """Say whether a command succeeds, whatever the system under test does."""
    return words[0] in _SUCCEED or exits_with_zero(words) or words in (("exit",), ("return",))


def notes_result(words: tuple[str, ...]) -> bool:
    """Say whether a command writes for later steps of the workflow, which may fail because of it."""
    return any("GITHUB_OUTPUT" in word or "GITHUB_ENV" in word for word in words)


def keeps_status(words: tuple[str, ...]) -> bool:
    return words[0] in {"exit", "return"} and words[1:2] in ((), ("$?",))


def simple_of(pipeline: Pipeline) -> Iterator[tuple[tuple[str, ...], int]]:
    yield from ((found.words, found.line) for found in pipeline.commands if isinstance(found, Simple) and found.words)


def fails_then(compound: Compound, position: int) -> str:
    """Return `exit` or `return` if a branch fails exactly when its condition, one command, fails; otherwise ""."""
    condition = compound.parts[position].body
    if compound.kind != "if" or len(condition) != 1 or len(condition[0].pipelines) != 1:
        return ""
    pipeline = condition[0].pipelines[0]
    branch = position + 1 if pipeline.negated else position + 2
    if len(pipeline.commands) != 1 or branch >= len(compound.parts) or compound.parts[branch].is_condition:
        return ""
    return next((words[0] for words, _ in flat(compound.parts[branch]) if ends_with_failure(words)), "")


def first_words(statements: tuple[AndOr, ...]) -> list[str]:
    """Return the words of the first command of a statement."""
    if not statements:
        return []
    command = statements[0].pipelines[0].commands[0]
    return list(command.words) if isinstance(command, Simple) else []


def ends_with_failure(words: tuple[str, ...]) -> bool:
    return words[0] in {"exit", "return"} and len(words) > 1 and words[1] not in _ZERO


def exits_with_zero(words: tuple[str, ...]) -> bool:
    return words[0] in {"exit", "return"} and len(words) > 1 and words[1] in _ZERO
