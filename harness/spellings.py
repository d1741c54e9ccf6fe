"""The spellings of a secret in a text: quoted for a language, or encoded as base64 (RFC 4648), as hex or with percents.

Quoted spellings are few, and are searched for as they are. Encoded ones are many and long, and consist of few
characters; only words of these characters are searched, so that ordinary text costs little.
"""

from __future__ import annotations

import base64
import html
import json
import os
import re
import shlex
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: encoded secrets are found by so many first characters; the shortest encoded spelling of six characters has seven
_INDEXED = 6
#: quoted spellings are found by so many first characters
_HEAD = 8
#: programs that wrap base64 or hex write lines of at least so many characters: 60 (xxd), 64 (PEM), 76 (base64)
_SHORTEST_WRAPPED = 60
_WORD = "A-Za-z0-9+/_%-"
_LINE = "A-Za-z0-9+/"
_LONGER_LINE = rf"(?<=[{_LINE}]{{{_SHORTEST_WRAPPED}}})\r?\n"
#: the end of lines that may go on with the rest of an encoded secret
_WRAPPED = re.compile(rf"[{_LINE}]{{{_SHORTEST_WRAPPED}}}\r?\n\Z")
_LAST_WORD = re.compile(rf"[{_WORD}]{{{_INDEXED},}}\Z")
#: characters at which a POSIX shell or bash's `printf %q` puts a backslash
_SHELL_SPECIAL = re.compile(r"([^A-Za-z0-9_@%+=:,./-])")
_DOUBLE_QUOTED = re.compile(r'([\\"$`])')


def quoted(secret: str) -> set[str]:
    """Return the spellings of a secret within quotes or between escapes, the secret itself included."""
    plain = secret.strip("\r\n")
    as_json = {
        json.dumps(text, ensure_ascii=ascii_only)[1:-1] for text in (secret, plain) for ascii_only in (True, False)
    }
    percent = {quote(secret, safe=""), quote_plus(secret), quote(secret)}
    return {
        plain,
        *percent,
        *(text.replace("%", "%25") for text in percent),  # a URL within a URL
        *(re.sub(r"%[0-9A-F]{2}", lambda found: found[0].lower(), text) for text in percent),
        *as_json,
        *(text.replace("/", r"\/") for text in as_json),  # as PHP writes it
        *(json.dumps(text)[1:-1] for text in as_json),  # JSON within JSON
        plain.replace("'", "''"),  # SQL
        repr(secret)[1:-1],
        shlex.quote(plain)[1:-1] if shlex.quote(plain) != plain else plain,
        plain.replace("'", r"'\''"),
        plain.replace("'", r"\'"),
        _SHELL_SPECIAL.sub(r"\\\1", plain),
        _DOUBLE_QUOTED.sub(r"\\\1", plain),
        *(html.escape(plain, quote=with_quotes) for with_quotes in (True, False)),
        html.escape(plain, quote=False).replace('"', "&quot;").replace("'", "&apos;"),
        html.escape(plain, quote=False).replace('"', "&quot;"),
    }


class Spellings:
    """Finds texts in another one, by their first characters: a pattern of whole texts takes long to compile."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._longest_first = sorted(set(texts), key=len, reverse=True)
        self._heads = re.compile(one_of({text[:_HEAD] for text in self._longest_first}))

    def spans(self, text: str, position: int = 0) -> Iterator[tuple[int, int]]:
        """Yield the start and the end of each occurrence from a position on, of the longest where several match."""
        while found := self._heads.search(text, position):
            start = found.start()
            spelling = next((one for one in self._longest_first if text.startswith(one, start)), "")
            position = start + max(1, len(spelling))
            if spelling:
                yield start, position


def one_of(texts: Iterable[str]) -> str:
    """Return a pattern that matches one of some texts, the longest where several match.

    The texts are merged at their common beginnings; a plain list would be tried one by one at every character.
    """
    *others, shortest = sorted(set(texts), key=len, reverse=True) or [""]
    if not others:
        return re.escape(shortest)
    shared = os.path.commonprefix([*others, shortest])  # noqa: RUF071 -- characters, not parts of a path
    following: dict[str, list[str]] = {}
    for text in (*others, shortest):
        if rest := text[len(shared) :]:
            following.setdefault(rest[0], []).append(rest)
    rest_of = "|".join(map(one_of, following.values()))
    return f"{re.escape(shared)}(?:{rest_of}){'?' if shortest == shared else ''}"


def encoded(secret: str) -> dict[str, tuple[int, int]]:
    """Return the encoded spellings of a secret, with the number of characters before and after that it decides too.

    In base64, three bytes are four characters, so a secret has three spellings, depending on the bytes before it. The
    characters at its ends may hold bits of its neighbours.
    """
    data = secret.encode("utf-8", errors="surrogateescape")
    found: dict[str, tuple[int, int]] = {}
    for before in range(3):
        whole = base64.b64encode(bytes(before) + data).decode().rstrip("=")
        start = (0, 2, 3)[before]
        shared = (before + len(data)) % 3 != 0
        text = whole[start : -1 if shared else None]
        for spelling in (text, text.replace("+", "-").replace("/", "_")):
            found[spelling] = (int(before > 0), int(shared))
    percents = "".join(f"%{byte:02X}" for byte in data)
    for spelling in (data.hex(), data.hex().upper(), percents, percents.lower()):
        found[spelling] = (0, 0)
    return found


class EncodedSecrets:
    """Finds the encoded spellings of secrets in a text."""

    def __init__(self) -> None:
        self._spellings: dict[str, tuple[int, int]] = {}
        self._by_start: dict[str, list[str]] = {}
        self._words: re.Pattern[str] | None = None
        self.longest = 0

    def add(self, secret: str) -> None:
        """Add a secret of at least six characters."""
        plain = secret.strip("\r\n")
        # of a URL or of JSON, which may be encoded as a whole
        escaped = {plain, quote(plain, safe=""), json.dumps(plain)[1:-1]}
        for spelling, beside in (item for text in escaped for item in encoded(text).items()):
            if spelling not in self._spellings:
                self._spellings[spelling] = beside
                same_start = self._by_start.setdefault(spelling[:_INDEXED], [])
                same_start.append(spelling)
                same_start.sort(key=len, reverse=True)
        shortest = min(map(len, self._spellings))
        self.longest = max(map(len, self._spellings)) + 2
        first = min(shortest, _SHORTEST_WRAPPED)
        self._words = re.compile(rf"(?<![{_WORD}])[{_WORD}]{{{first},}}(?:{_LONGER_LINE}[{_LINE}]+)*")

    def spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield the start and the end of each encoded secret, in their order."""
        for word in self._words.finditer(text) if self._words else ():
            if "\n" not in word[0] and "\r" not in word[0]:
                for start, end in self._within(word[0]):
                    yield word.start() + start, word.start() + end
                continue
            # a wrapped word is searched without its line ends
            at = [position for position in range(*word.span()) if text[position] not in "\r\n"]
            joined = "".join(text[position] for position in at)
            for start, end in self._within(joined):
                yield at[start], at[end - 1] + 1

    def _within(self, word: str) -> Iterator[tuple[int, int]]:
        # searching for each beginning is faster than looking one up at each position
        if len(word) > len(self._by_start) and not any(start in word for start in self._by_start):
            return
        position = free = 0
        while position <= len(word) - _INDEXED:
            for spelling in self._by_start.get(word[position : position + _INDEXED], ()):
                if word.startswith(spelling, position):
                    before, after = self._spellings[spelling]
                    free, start = min(len(word), position + len(spelling) + after), max(free, position - before)
                    yield start, free
                    position = free - 1
                    break
            position += 1

    def before(self, text: str, position: int) -> int:
        """Return a position, or the start of the encoded secret around it."""
        first = max(0, position - self.longest)
        window = text[first : position + self.longest]
        around = (first + start for start, end in self.spans(window) if start < position - first < end)
        return next(around, position)

    def beginning_at_end(self, text: str) -> int:
        """Return the length of the beginning of an encoded secret at the end of a text; 0 without one."""
        if (found := _LAST_WORD.search(text)) is None:
            return 0
        word = found[0]
        for start in range(len(word) - _INDEXED + 1):
            rest = word[start:]
            if any(spelling.startswith(rest) for spelling in self._by_start.get(rest[:_INDEXED], ())):
                return len(rest)
        return 0


def may_continue(text: str) -> bool:
    """Return whether complete lines end with one that a program may have wrapped."""
    return _WRAPPED.search(text[-_SHORTEST_WRAPPED - 2 :]) is not None
