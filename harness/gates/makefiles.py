"""Makefiles: which commands a target runs, and whether make ignores their failure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_LONGEST_LINE = 2_000
#: directives of make itself, which end no rule
_CONDITIONAL = re.compile(r" *(?:ifdef|ifndef|ifeq|ifneq|else|endif)\b")
#: a variable with a plain value, and where it is used
_VARIABLE = re.compile(r"^([A-Z_][A-Z0-9_]*)[ \t]*[:?]?=[ \t]*([\w./ +-]{1,200})$", re.MULTILINE)
#: how make starts its shell
_SHELL = re.compile(r"^(?:SHELL|\.SHELLFLAGS)[ \t]*[:?]?=[ \t]*(.{1,200})$", re.MULTILINE)
_PREFIX = re.compile(r"[@+\-\s]*")
_REFERENCE = re.compile(r"(?<!\$)\$[({]([A-Z_][A-Z0-9_]*)[)}]")


class Makefile:
    """The recipes of a makefile: explicit targets only."""

    def __init__(self, text: str) -> None:
        shell = " ".join(_SHELL.findall(text))
        #: whether its shell starts with `set -e`, and with `set -o pipefail`
        self.errexit = bool(re.search(r"(?:^|\s)-[a-z]*e|errexit", shell))
        self.pipefail = "pipefail" in shell
        self._prerequisites: dict[str, list[str]] = {}
        self._recipes: dict[str, list[tuple[int, str]]] = {}
        self.default: list[str] = []
        self._variables = {match[1]: match[2].strip() for match in _VARIABLE.finditer(text)} | {"MAKE": "make"}
        targets: list[str] = []
        lines = text.split("\n")
        number = 0
        while number < len(lines):
            first, line = number + 1, lines[number]
            while line.endswith("\\") and number + 1 < len(lines):
                number += 1
                line = line[:-1] + "\\\n" + lines[number] if line.startswith("\t") else line[:-1] + " " + lines[number]
            number += 1
            if _CONDITIONAL.match(line):
                continue
            if line.startswith("\t"):
                for target in targets:
                    self._recipes.setdefault(target, []).append((first, line[1:]))
            elif match := re.match(r"([^\s#:=][^#:=]*?)\s*::?(?![=:])([^#]*)", line[:_LONGEST_LINE]):
                targets = match[1].split()
                prerequisites, _, recipe = match[2].partition(";")
                for target in targets:
                    self._prerequisites.setdefault(target, []).extend(prerequisites.split())
                    if recipe.strip():
                        self._recipes.setdefault(target, []).append((first, recipe.strip()))
                if not self.default and not targets[0].startswith("."):
                    self.default = targets[:1]
            elif line.strip() and not line.lstrip().startswith("#"):
                targets = []

    def is_closed(self, targets: list[str], files: Collection[str]) -> bool:
        """Say whether every target and prerequisite is explicit here, or a file."""
        waiting, seen = list(targets), set()
        while waiting:
            target = waiting.pop()
            if target not in seen and target not in files:
                if target not in self._prerequisites:
                    return False
                seen.add(target)
                waiting += self._prerequisites[target]
        return True

    def lines(self, targets: list[str]) -> Iterator[tuple[int, str, bool]]:
        """Return the lines of the recipes of targets and prerequisites, and whether make ignores their failure."""
        waiting, seen = list(targets), set()
        while waiting:
            target = waiting.pop(0)
            if target in seen:
                continue
            seen.add(target)
            waiting += self._prerequisites.get(target, [])
            recipes = self._recipes.get(target, [])
            if ".ONESHELL" in self._prerequisites and recipes:  # only the marks before its first line count
                rest = [_PREFIX.sub("", text, count=1) for _, text in recipes[1:]]
                recipes = [(recipes[0][0], "\n".join((recipes[0][1], *rest)))]
            for line, recipe in recipes:
                prefix = _PREFIX.match(recipe)
                marks = prefix[0] if prefix else ""
                command = _REFERENCE.sub(lambda found: self._variables.get(found[1], found[0]), recipe[len(marks) :])
                yield line, command.replace("$$", "$"), "-" in marks or self._ignores(target)

    def _ignores(self, target: str) -> bool:
        """Say whether `.IGNORE` names a target, or all of them."""
        named = self._prerequisites.get(".IGNORE")
        return named is not None and (not named or target in named)
