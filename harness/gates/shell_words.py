"""The words and operators of POSIX shell and Bash, with line numbers: quotes, expansions, arrays and here-documents."""

from __future__ import annotations

import re

from msgspec import Struct

_OPERATORS = ("&&", "||", ";;&", ";;", ";&", "|&", ";", "|", "&", "(", ")", "\n")
_HEREDOC = re.compile(r"\d*<<(-?)[ \t]*(?:(['\"])(.+?)\2|\\?([^\s;&|<>()'\"`]+))")
#: where a parenthesis belongs to a word: of an array, of a pattern, of a process
_OPENS_IN_WORD = re.compile(r"(?:[A-Za-z_]\w*(?:\[[^]]*\])?\+?=|.*[@?*+]|.+!|.*[<>])", re.DOTALL)
_CASE = re.compile(r"(?<![\w-])(case|esac)(?![\w-])")
#: words after which a command begins, as it does after an operator
_BEFORE_COMMANDS = frozenset({"if", "then", "elif", "else", "while", "until", "do", "{", "!", "for"})
_DEEPEST = 60
_BRACKETS = {"(": ")", "{": "}"}


class UnreadableScriptError(Exception):
    """The text is not shell, or is nested deeper than it is read."""


class Token(Struct, frozen=True):
    """A word without its quotes, or an operator."""

    text: str
    line: int
    is_operator: bool = False
    #: whether a part of it is quoted, so that it is not a reserved word
    quoted: bool = False
    #: scripts of the `$(…)` in it
    inner: tuple[str, ...] = ()
    #: of the operator of a here-document: its text
    document: str = ""


def tokens_of(text: str, line: int) -> list[Token]:
    """Return the tokens of a script whose first line has this number.

    :raises UnreadableScriptError: for expansions that are nested too deep.
    """
    lexer = _Lexer(text, line)
    lexer.read()
    return lexer.tokens


class _Lexer:
    def __init__(self, text: str, line: int) -> None:
        self._text = text
        self._at = 0
        self._line = line
        self.tokens: list[Token] = []
        #: here-documents whose text follows the next newline: place of the token, end, whether tabs are removed
        self._documents: list[tuple[int, str, bool]] = []
        #: groups within groups, each read up to its end
        self._groups = 0

    def read(self) -> None:
        text = self._text
        while self._at < len(text):
            character = text[self._at]
            if character in " \t\r":
                self._at += 1
            elif text.startswith("\\\n", self._at):
                self._skip(self._at + 2)
            elif character == "#":
                self._at = _index(text, "\n", self._at)
            elif text.startswith("((", self._at) and self._is_command() and (end := self._arithmetic_end()):
                self._add(text[self._at : end], end)
            elif re.match(r"\[\[\s", text[self._at : self._at + 3]) and self._is_command():
                self._condition()
            elif found := _HEREDOC.match(text, self._at):
                self._documents.append((len(self.tokens), found[3] or found[4], bool(found[1])))
                self._add("<<", found.end())
            elif operator := next((found for found in _OPERATORS if text.startswith(found, self._at)), ""):
                self._operator(operator)
            else:
                self._word()

    def _skip(self, end: int) -> None:
        self._line += self._text.count("\n", self._at, end)
        self._at = end

    def _add(self, text: str, end: int, *, quoted: bool = False, inner: tuple[str, ...] = ()) -> None:
        self.tokens.append(Token(text, self._line, quoted=quoted, inner=inner))
        self._skip(end)

    def _is_command(self) -> bool:
        """Say whether a command begins here."""
        last = self.tokens[-1] if self.tokens else None
        return last is None or last.is_operator or last.text in _BEFORE_COMMANDS

    def _arithmetic_end(self) -> int:
        """Return the position after `((…))`; 0 for a group within a group."""
        end = _closing(self._text, self._at, 0)
        if end - 1 == _closing(self._text, self._at + 1, 0):
            return end
        self._groups += 1
        if self._groups > _DEEPEST:
            raise UnreadableScriptError(f"more than {_DEEPEST} groups within groups")
        return 0

    def _operator(self, operator: str) -> None:
        if operator == "&" and self._text.startswith("&>", self._at):  # a redirection of both outputs
            self._word()
            return
        self.tokens.append(Token(operator, self._line, is_operator=True))
        self._skip(self._at + len(operator))
        if operator == "\n":
            for place, end, has_tabs in self._documents:
                closing = re.compile(rf"^{chr(9) + '*' if has_tabs else ''}{re.escape(end)}$", re.MULTILINE)
                found = closing.search(self._text, self._at)
                body = self._text[self._at : found.start() if found else len(self._text)]
                opened = self.tokens[place]
                self.tokens[place] = Token(opened.text, opened.line, document=body or "\n")
                self._skip(found.end() if found else len(self._text))
            self._documents = []

    def _condition(self) -> None:
        """Read `[[ … ]]` as one word: its operators join no commands."""
        match = re.compile(r"\s\]\](?=[\s;&|)]|\Z)").search(self._text, self._at)
        end = match.end() if match else len(self._text)
        self._add(self._text[self._at : end], end)

    def _word(self) -> None:
        text, at, parts = self._text, self._at, _Parts()
        while at < len(text):
            character = text[at]
            if character in " \t\r\n;)" or (character in "&|" and not _is_redirection(text, at)):
                break
            if text.startswith("<<", at) and not text.startswith("<<<", at) and text[at - 1 : at] != "<":
                break
            if character == "(":
                if not _OPENS_IN_WORD.fullmatch(text, self._at, at):
                    break
                end = _closing(text, at, 0)
                parts.literal(text[at:end])
                if text[at - 1] in "<>":
                    parts.inner.append(text[at + 1 : end - 1])
                at = end
            elif character in "&|":
                at = _literal(text, at, parts)
            else:
                at = _part(text, at, parts, 0)
        if at == self._at:
            raise UnreadableScriptError(f"unexpected {text[at]!r} in line {self._line}")
        self._add("".join(parts.texts), at, quoted=parts.quoted, inner=tuple(parts.inner))


class _Parts:
    """What a word is made of."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.quoted = False
        self.inner: list[str] = []

    def literal(self, text: str) -> None:
        self.texts.append(text)


def _is_redirection(text: str, at: int) -> bool:
    """Say whether `&` or `|` is a part of a redirection: `2>&1`, `<&3`, `&>` or `>|`."""
    return text.startswith("&>", at) or (at > 0 and text[at - 1] in "<>")


def _part(text: str, at: int, parts: _Parts, depth: int) -> int:
    """Read a part of a word, and return the position after it."""
    if depth > _DEEPEST:
        raise UnreadableScriptError("expansions are nested too deep")
    character = text[at]
    if character == "'" or text.startswith("$'", at):
        start = at + 1 + (character == "$")
        end = _ansi_end(text, start) if character == "$" else _index(text, "'", start)
        parts.literal(text[start:end])
        parts.quoted = True
        return end + 1
    if character == '"':
        parts.quoted = True
        at += 1
        while at < len(text) and text[at] != '"':
            is_part = text[at] in "\\$`" and not text.startswith("$'", at)
            at = _part(text, at, parts, depth + 1) if is_part else _literal(text, at, parts)
        return at + 1
    if text.startswith(("$(", "${"), at) or character == "`":
        end = _expansion_end(text, at, depth)
        parts.literal(text[at:end])
        if text.startswith("$(", at) and not text.startswith("$((", at):
            parts.inner.append(text[at + 2 : end - 1])
        elif character == "`":
            parts.inner.append(text[at + 1 : end - 1])
        return end
    if character == "\\":
        parts.literal(text[at + 1 : at + 2].replace("\n", ""))
        return at + 2
    return _literal(text, at, parts)


def _literal(text: str, at: int, parts: _Parts) -> int:
    parts.literal(text[at])
    return at + 1


def _index(text: str, wanted: str, at: int) -> int:
    found = text.find(wanted, at)
    return len(text) if found < 0 else found


def _ansi_end(text: str, at: int) -> int:
    while at < len(text) and text[at] != "'":
        at += 2 if text[at] == "\\" else 1
    return at


def _expansion_end(text: str, at: int, depth: int) -> int:
    """Return the position after an expansion: `$(…)`, `${…}` or backticks."""
    if text[at] != "`":
        return _closing(text, at + 1, depth)
    at += 1
    while at < len(text) and text[at] != "`":
        at += 2 if text[at] == "\\" else 1
    return at + 1


def _closing(text: str, at: int, depth: int) -> int:
    """Return the position after the bracket that closes the one here. Patterns of `case` have brackets of their own."""
    opening, closing = text[at], _BRACKETS[text[at]]
    nested = cases = 0
    while at < len(text):
        character = text[at]
        if character in "'\"`\\" or text.startswith(("$(", "${", "$'"), at):
            # in "${…}" a single quote is a letter; no script of the searched ones closes a bracket within one
            at = _part(text, at, _Parts(), depth + 1)
            continue
        if character == "#" and opening == "(" and text[at - 1] in " \t\n":
            at = _index(text, "\n", at)
            continue
        if opening == "(" and (word := _CASE.match(text, at)):
            cases += 1 if word[1] == "case" else -1 if cases else 0
            at = word.end()
            continue
        if character == opening:
            nested += 1
        elif character == closing and not (cases and nested == 1):
            nested -= 1
            if not nested:
                return at + 1
        at += 1
    return len(text)
