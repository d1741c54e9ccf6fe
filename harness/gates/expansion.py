"""From a script of a step to all commands that it executes: also those in scripts, makefiles and `package.json`."""

from __future__ import annotations

import json
import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from harness.gates.makefiles import Makefile
from harness.gates.programs import (
    Kind,
    always_zero,
    declares,
    is_harmless,
    is_unseen,
    kinds_inside,
    kinds_of,
    only_prints,
    own_script,
    quoted,
    unwrapped,
)
from harness.gates.rows import Place
from harness.gates.shell import Ran, commands_of
from harness.gates.shell_rules import Fate
from harness.gates.shell_words import UnreadableScriptError
from harness.gates.steps import Executed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.gates.declaration import Steps
    from harness.gates.tree import Tree

#: a task that calls a task that calls a script
_DEEPEST = 4
_MOST = 5_000
_EXPRESSION = re.compile(r"\$\{\{.{0,1000}?\}\}", re.DOTALL)
_NODE = frozenset({"npm", "pnpm", "yarn", "bun"})
#: options and words with which the script of another package runs, or of several
_OTHER_PACKAGES = re.compile(r"-w|-ws|-r|--recursive|--workspaces?(?:=.*)?|workspaces?|-F|--filter(?:=.*)?|foreach")
#: a folder that is not known
_UNKNOWN = "$unknown"
_SHELLS = frozenset({"bash", "sh", "dash", "zsh"})


class Source(Struct, frozen=True, kw_only=True):
    """A script: its text, where it is, how its shell is started, and what happens to its failure."""

    text: str
    path: str
    line: int
    errexit: bool = True
    pipefail: bool = False
    #: working directory, relative to the repository
    folder: str = ""
    fate: Fate = Fate()
    never: str = ""
    #: whether the command that calls it also runs what is not read
    partial: bool = False


class _Read(Struct, frozen=True, kw_only=True):
    """What is known of a called script."""

    #: what its commands check
    kinds: frozenset[Kind] = frozenset()
    #: why it was not read
    unread: str = ""
    #: whether one of its commands can fail it
    can_fail: bool = True


class Expansion:
    """Reads scripts of a repository. Each one is read once for each way in which it is called, so that circles end."""

    def __init__(self, tree: Tree, declared: Steps) -> None:
        self._tree = tree
        self._declared = declared
        #: called scripts that were not read
        self.unread: list[Place] = []
        #: what is known of called scripts; their line, and what is around them, do not matter
        self._seen: dict[Source, _Read] = {}
        self._count = 0

    def executed(self, source: Source, depth: int = 0) -> Iterator[Executed]:
        """Return the commands of a script, and of what they call.

        :raises UnreadableScriptError: when the text is not read as shell.
        """
        if depth > _DEEPEST:
            raise UnreadableScriptError(f"more than {_DEEPEST} scripts call each other")
        text = _EXPRESSION.sub(lambda match: re.sub(r"[^\n]", "_", match[0]), source.text)
        for ran in commands_of(text, source.line, errexit=source.errexit, pipefail=source.pipefail):
            self._count += 1
            if self._count > _MOST:
                raise UnreadableScriptError(f"more than {_MOST:,} commands")
            if ran.words[0] in {"cd", "pushd"}:
                source = replace(source, folder=_after(source.folder, ran.words))
            yield from self._of_command(ran, source, depth)

    def _of_command(self, ran: Ran, source: Source, depth: int) -> Iterator[Executed]:
        fate = Fate(ran.lost, ran.unclear).within(source.fate)
        if not ran.for_output and (option := always_zero(ran.words)):
            fate = Fate(lost=f"`{option}` hides what it finds").within(fate)
        kinds = kinds_of(ran.words, self._declared) or kinds_inside(ran.words, self._declared)
        inner, inside, unread, idle = self._called(ran, source, fate, depth)
        command = unwrapped(ran.words)
        if not command:
            return
        if "--if-present" in command and command[0] in _NODE and not (inside or inner):
            unread = unread or "`--if-present`: whether the script is there is not known"
        if idle := idle or self._idle(command, source):
            fate = Fate(lost=idle).within(fate)
        unread = unread or self._missing(command, source)
        if unread and not source.never:
            self.unread.append(Place(source.path, ran.line, f"{quoted(ran.words)}: {unread}"))
        is_other = declares(self._declared.other, " ".join(ran.words))
        is_opaque = not inside and not inner and not idle and not is_other and is_unseen(ran.words)
        yield Executed(
            text=quoted(ran.words),
            path=source.path,
            line=ran.line,
            kinds=kinds - inside,  # its own commands say it better than its name
            unseen=is_opaque and not kinds and not ran.for_output,
            by_name=is_opaque and bool(kinds),
            lost=fate.lost,
            unclear=fate.unclear or unread,
            never=source.never,
            harmless=ran.decides or is_harmless(ran.words),
            words=ran.words,
            folder=source.folder,
        )
        yield from inner

    def _called(
        self, ran: Ran, source: Source, fate: Fate, depth: int
    ) -> tuple[list[Executed], frozenset[Kind], str, str]:
        """Return the commands that a command calls, unless they were returned before.

        Also what they check, why a part of them was not read, and why they cannot fail.
        """
        found: list[Executed] = []
        read: list[_Read] = []
        path, is_partial = "", False
        for called in self._sources(ran, source, fate):
            key = replace(called, line=0)
            path, is_partial = called.path, called.partial
            if key not in self._seen:
                # a script that calls itself is read where it was called first
                self._seen[key] = _Read(kinds=frozenset(Kind))
                try:
                    inner = list(self.executed(called, depth + 1))
                    kinds = frozenset[Kind]().union(*(step.kinds for step in inner))
                    can_fail = any(not (step.lost or step.harmless) for step in inner)
                    self._seen[key] = _Read(kinds=kinds, can_fail=can_fail)
                    found += inner
                except UnreadableScriptError as error:
                    self._seen[key] = _Read(unread=f"{called.path} is not read: {error}")
            read.append(self._seen[key])
        idle = "" if not read or is_partial or any(one.can_fail for one in read) else f"nothing in {path} can fail it"
        return (
            found,
            frozenset[Kind]().union(*(one.kinds for one in read)),
            next((one.unread for one in read if one.unread), ""),
            idle,
        )

    def _idle(self, command: list[str], source: Source) -> str:
        """Return that a script in another language than shell only prints; "" for every other command."""
        script = own_script(command)
        path = _in_folder(source.folder, script[0]) if script else None
        text = self._tree.text(path) if path else None
        return f"{path} only prints" if text is not None and only_prints(text) else ""

    def _sources(self, ran: Ran, source: Source, fate: Fate) -> Iterator[Source]:
        """Return the scripts that a command runs, if they are in the repository and are shell."""
        command = unwrapped(ran.words)
        if inline := _inline(command, ran.document):
            flags, text = inline
            yield Source(
                text=text,
                path=source.path,
                line=ran.line,
                errexit="e" in flags,
                folder=source.folder,
                fate=fate,
                never=source.never,
            )
        elif command and command[0] in _NODE:
            yield from self._node(command, source, fate)
        elif command and command[0] in {"make", "gmake"}:
            yield from self._make(command, source, fate)
        elif command and command[0] == "eval":
            inner = replace(source, text=" ".join(command[1:]), line=ran.line, fate=fate, partial=False)
            yield replace(inner, errexit=ran.errexit, pipefail=ran.pipefail)
        elif command and (script := own_script(command)):
            for called in self._script(command, script[0], source, fate):
                is_same_shell = command[0] in {"source", "."}
                yield replace(called, errexit=ran.errexit, pipefail=ran.pipefail) if is_same_shell else called

    def _missing(self, command: list[str], source: Source) -> str:
        """Return that a shell script is not there: its name alone checks nothing; "" for every other command."""
        script = own_script(command)
        if not script or not script[0].endswith(".sh"):
            return ""
        path = _in_folder(source.folder, script[0])
        return "" if path is None or self._tree.text(path) is not None else f"{path} is not in the repository"

    def _script(self, command: list[str], name: str, source: Source, fate: Fate) -> Iterator[Source]:
        path = _in_folder(source.folder, name)
        text = self._tree.text(path) if path else None
        if path is None or text is None:
            return
        first = text.partition("\n")[0]
        is_shell = re.match(r"#!.*\b(?:ba|da|z)?sh\b", first) or (not first.startswith("#!") and path.endswith(".sh"))
        if not is_shell:
            return
        flags = " ".join(command[1 : command.index(name)]) if command[0] in _SHELLS else first
        yield Source(
            text=text,
            path=path,
            line=1,
            errexit=bool(re.search(r"(?:^|\s)-[a-z]*e|errexit", flags)),
            pipefail="pipefail" in flags,
            folder=source.folder,
            fate=fate,
            never=source.never,
        )

    def _node(self, command: list[str], source: Source, fate: Fate) -> Iterator[Source]:
        folder = source.folder
        words = command[1:]
        for option in ("--prefix", "--cwd", "-C", "--dir"):
            value, words = _option(words, option)
            folder = _in_folder(folder, value) or folder if value else folder
        if any(_OTHER_PACKAGES.fullmatch(word) for word in words):
            return
        names = [word for word in words if not word.startswith("-") and word not in {"run", "run-script"}]
        path = _in_folder(folder, "package.json")
        text = self._tree.text(path) if path else None
        if not names or path is None or text is None:
            return
        name = {"t": "test", "tst": "test"}.get(names[0], names[0])
        scripts = _scripts(text)
        for script in (f"pre{name}", name, f"post{name}"):
            if script in scripts:
                yield Source(
                    text=scripts[script],
                    path=path,
                    line=_line_of(text, rf'"{re.escape(script)}"\s*:'),
                    errexit=False,
                    folder=folder,
                    fate=fate,
                    never=source.never,
                )

    def _make(self, command: list[str], source: Source, fate: Fate) -> Iterator[Source]:
        folder = source.folder
        value, words = _option(command[1:], "-C")
        folder = _in_folder(folder, value) or folder if value else folder
        file, words = _option(words, "-f")
        flags = "".join(word[1:] for word in words if re.fullmatch(r"-[a-zA-Z]+", word))
        if "i" in flags or "--ignore-errors" in words:
            fate = Fate(lost="`make --ignore-errors` hides its failure").within(fate)
        targets = [word for word in words if not word.startswith("-") and "=" not in word]
        names = (_in_folder(folder, name) for name in ((file,) if file else ("GNUmakefile", "makefile", "Makefile")))
        found = next(((path, text) for path in names if path and (text := self._tree.text(path)) is not None), None)
        if found is None:
            return
        recipes = Makefile(found[1])
        is_closed = recipes.is_closed(targets or recipes.default, self._tree.files)
        ignored = Fate(lost="the makefile ignores its failure, with `-` or `.IGNORE`").within(fate)
        for line, text, is_ignored in recipes.lines(targets or recipes.default):
            yield Source(
                text=text,
                path=found[0],
                line=line,
                errexit=recipes.errexit,
                pipefail=recipes.pipefail,
                folder=folder,
                fate=ignored if is_ignored else fate,
                never=source.never,
                partial=not is_closed,
            )


def _inline(command: list[str], document: str) -> tuple[str, str] | None:
    """Return the flags and the text of `sh -c TEXT` or `sh <<END`, wherever it is in a command."""
    for at, word in enumerate(command if document else ()):
        options = command[at + 1 :]
        if word.rpartition("/")[2] in _SHELLS and all(option.startswith("-") for option in options):
            return " ".join(options), document
    for at, word in enumerate(command[:-2]):
        flags = command[at + 1]
        if word.rpartition("/")[2] in _SHELLS and re.fullmatch(r"-[a-z]*c", flags):
            return flags, command[at + 2]
    return None


def _option(words: list[str], option: str) -> tuple[str, list[str]]:
    """Return the value of an option, "" without it, and the other words."""
    if option not in words[:-1]:
        return "", words
    at = words.index(option)
    return words[at + 1], words[:at] + words[at + 2 :]


def _scripts(text: str) -> dict[str, str]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    scripts = data.get("scripts") if isinstance(data, dict) else None
    entries = scripts.items() if isinstance(scripts, dict) else ()
    return {name: script for name, script in entries if isinstance(script, str)}


def _line_of(text: str, pattern: str) -> int:
    match = re.search(pattern, text)
    return text.count("\n", 0, match.start()) + 1 if match else 1


def _after(folder: str, words: tuple[str, ...]) -> str:
    """Return the folder after `cd`."""
    names = [word for word in words[1:] if word != "--"]
    found = _in_folder(folder, names[0]) if len(names) == 1 and names[0] not in {"-", "~"} else None
    return _UNKNOWN if found is None else found


def _in_folder(folder: str, name: str) -> str | None:
    """Return a path relative to the repository; None when it leads out of it, or has a variable."""
    if name.startswith(("/", "~")) or "$" in name or "$" in folder:
        return None
    parts: list[str] = []
    for part in PurePosixPath(folder, name).parts:
        if part == "..":
            if not parts:
                return None
            parts.pop()
        elif part != ".":
            parts.append(part)
    return "/".join(parts)
