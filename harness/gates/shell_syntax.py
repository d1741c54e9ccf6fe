"""A small parser of POSIX shell and Bash: lists, pipes, groups, branches and loops, with line numbers. Runs nothing."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.gates.shell_words import Token, UnreadableScriptError, tokens_of

if TYPE_CHECKING:
    from collections.abc import Collection

_LARGEST_SCRIPT = 64_000
_DEEPEST = 40
_COMPOUND = {"if": "fi", "while": "done", "until": "done", "for": "done", "select": "done", "case": "esac", "{": "}"}
_CASE_ENDS = (";;", ";&", ";;&")
_CONDITIONS = frozenset({"if", "elif", "while", "until"})
#: words after which another part of the same compound command begins
_PARTS = frozenset({"then", "elif", "else", "do"})


class Simple(Struct, frozen=True):
    """A command with its arguments. Quotes are removed from its words."""

    words: tuple[str, ...]
    line: int
    #: scripts of the `$(…)`, backticks and `<(…)` in its words
    inner: tuple[str, ...] = ()
    #: its here-document
    document: str = ""


class Part(Struct, frozen=True):
    """A part of a compound command. A condition decides which part runs next, and fails nothing."""

    body: tuple[AndOr, ...]
    is_condition: bool = False


class Compound(Struct, frozen=True):
    """A group, a branch, a loop or the definition of a function."""

    kind: str
    parts: tuple[Part, ...]
    #: of a function
    name: str = ""


class Pipeline(Struct, frozen=True):
    commands: tuple[Simple | Compound, ...]
    negated: bool = False


class AndOr(Struct, frozen=True):
    """Pipelines that `&&` and `||` join: one operator fewer than pipelines."""

    pipelines: tuple[Pipeline, ...]
    operators: tuple[str, ...]
    background: bool = False


def parse_script(text: str, first_line: int = 1) -> tuple[AndOr, ...]:
    """Return the statements of a script.

    :raises UnreadableScriptError: for text that this parser does not read.
    """
    if len(text) > _LARGEST_SCRIPT:
        raise UnreadableScriptError(f"more than {_LARGEST_SCRIPT:,} characters")
    parser = _Parser(tokens_of(text, first_line))
    statements = parser.statements(frozenset(), 0)
    parser.require_end()
    return statements


class _Parser:
    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._at = 0

    def require_end(self) -> None:
        if (token := self._peek()) is not None:
            raise UnreadableScriptError(f"unexpected {token.text!r} in line {token.line}")

    def _peek(self) -> Token | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _next_is(self, *texts: str) -> bool:
        token = self._peek()
        return token is not None and token.is_operator and token.text in texts

    def _reserved(self) -> str:
        """The next word, if it may be a reserved word."""
        token = self._peek()
        return "" if token is None or token.is_operator or token.quoted else token.text

    def statements(self, ends: Collection[str], depth: int) -> tuple[AndOr, ...]:
        """Return the statements before one of the words or operators that end them."""
        if depth > _DEEPEST:
            raise UnreadableScriptError("nested too deep")
        found: list[AndOr] = []
        while True:
            while self._next_is("\n", ";"):
                self._at += 1
            token = self._peek()
            if token is None or (token.text in ends and (token.is_operator or not token.quoted)):
                return tuple(found)
            found.append(self._and_or(depth))

    def _and_or(self, depth: int) -> AndOr:
        pipelines, operators = [self._pipeline(depth)], []
        while self._next_is("&&", "||"):
            operators.append(self._tokens[self._at].text)
            self._at += 1
            self._skip_newlines()
            pipelines.append(self._pipeline(depth))
        background = self._next_is("&")
        self._at += background
        return AndOr(tuple(pipelines), tuple(operators), background)

    def _skip_newlines(self) -> None:
        while self._next_is("\n"):
            self._at += 1

    def _pipeline(self, depth: int) -> Pipeline:
        negated = self._reserved() == "!"
        self._at += negated
        commands = [self._command(depth)]
        while self._next_is("|", "|&"):
            self._at += 1
            self._skip_newlines()
            commands.append(self._command(depth))
        return Pipeline(tuple(commands), negated)

    def _command(self, depth: int) -> Simple | Compound:
        if depth > _DEEPEST:
            raise UnreadableScriptError("nested too deep")
        token = self._peek()
        if token is None:
            raise UnreadableScriptError("a command is missing at the end")
        if self._next_is("("):
            self._at += 1
            body = self.statements({")"}, depth + 1)
            self._expect(")")
            return self._redirected(Compound("(", (Part(body),)))
        if token.is_operator:
            raise UnreadableScriptError(f"unexpected {token.text!r} in line {token.line}")
        if (kind := self._reserved()) in _COMPOUND:
            self._at += 1
            return self._redirected(self._compound(kind, token.line, depth))
        return self._simple(token, depth)

    def _compound(self, kind: str, line: int, depth: int) -> Compound:
        end = _COMPOUND[kind]
        if kind == "case":
            return Compound(kind, tuple(self._cases(depth)))
        if kind in {"for", "select"}:  # the words of the list are not commands
            while (token := self._peek()) is not None and self._reserved() != "do":
                if token.is_operator and token.text not in {"\n", ";", "(", ")"}:
                    raise UnreadableScriptError(f"unexpected {token.text!r} in line {token.line}")
                self._at += 1
        parts: list[Part] = []
        opened = kind
        while True:
            if opened not in {"for", "select"} or parts:
                parts.append(Part(self.statements({end, *_PARTS}, depth + 1), is_condition=opened in _CONDITIONS))
            elif self._reserved() != "do":
                raise UnreadableScriptError(f"do is missing after {kind} in line {line}")
            else:
                parts.append(Part(()))
            closing = self._reserved()
            if not closing:
                raise UnreadableScriptError(f"{end} is missing after {kind} in line {line}")
            self._at += 1
            if closing == end:
                return Compound(kind, tuple(parts))
            opened = closing

    def _cases(self, depth: int) -> list[Part]:
        parts: list[Part] = []
        while self._peek() is not None and self._reserved() != "in":
            self._at += 1
        self._at += 1
        while True:
            while self._next_is("\n", *_CASE_ENDS, "("):
                self._at += 1
            if self._peek() is None:
                raise UnreadableScriptError("esac is missing")
            if self._reserved() == "esac":
                self._at += 1
                return parts
            while self._peek() is not None and not self._next_is(")"):
                self._at += 1
            self._expect(")")
            parts.append(Part(self.statements({*_CASE_ENDS, "esac"}, depth + 1)))

    def _redirected(self, compound: Compound) -> Compound:
        while (token := self._peek()) is not None and not token.is_operator and re.match(r"\d*[<>]", token.text):
            self._at += 1
            if re.fullmatch(r"\d*[<>]+", token.text) and self._peek() is not None:
                self._at += 1
        return compound

    def _simple(self, first: Token, depth: int) -> Simple | Compound:
        if self._reserved() == "function":
            self._at += 1
            name = self._reserved()
            self._at += 1
            self._skip_newlines()
            return self._function(name, depth)
        found: list[Token] = []
        while (token := self._peek()) is not None and not token.is_operator:
            found.append(token)
            self._at += 1
        if len(found) == 1 and self._next_is("("):
            return self._function(first.text, depth)
        inner = tuple(script for token in found for script in token.inner)
        document = next((token.document for token in found if token.document), "")
        return Simple(tuple(token.text for token in found if not token.document), first.line, inner, document)

    def _function(self, name: str, depth: int) -> Compound:
        if self._next_is("("):
            self._at += 1
            self._expect(")")
        self._skip_newlines()
        body = Part((AndOr((Pipeline((self._command(depth + 1),)),), ()),))
        return Compound("function", (body,), name)

    def _expect(self, text: str) -> None:
        if not self._next_is(text):
            token = self._peek()
            at = f"in line {token.line}" if token else "at the end"
            raise UnreadableScriptError(f"{text} is missing {at}")
        self._at += 1
