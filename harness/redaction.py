"""Redaction of secrets, before anything is written or printed.

There are two kinds of patterns: the values of all secrets that the run made or received, and the shapes that secrets
have in any text (URLs with credentials, passwords in connection strings, SCRAM verifiers).
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from threading import Lock
from typing import TYPE_CHECKING

from harness.spellings import EncodedSecrets, Spellings, may_continue, quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MASK = "[redacted]"

#: shorter secrets are not redacted by value, because they also occur in ordinary text
_SHORTEST = 6
#: of a secret of several lines, shorter lines are not redacted on their own
_SHORTEST_LINE = 8
#: never redacted by value: people use these words as passwords of test databases, and the evidence consists of them
ORDINARY = frozenset(
    (
        *(
            "database",
            "direct",
            "docker",
            "example",
            "failed",
            "finished",
            "harness",
            "interrupted",
            "localhost",
            "native",
        ),
        *(
            "odyssey",
            "passwd",
            "password",
            "pgagroal",
            "pgbouncer",
            "pgpool",
            "pooler",
            "postgres",
            "postgresql",
            "public",
        ),
        *("running", "secret", "session", "statement", "staging", "testing", "transaction", "username"),
    )
)
#: at the end of a text that was cut
_CUT = "…"
#: a text that arrives in pieces, in characters: a line is cut when it is longer, the cut is so far from its end, and
#: these last gaps between words are tried
_MOST_HELD, _LEAST_KEPT, _TRIED_CUTS = 262_144, 4096, 4
#: in characters; longer texts are logs, which are redacted once
_LONGEST_KEPT = 2000

#: names and patterns of tokens whose prefix identifies their issuer
TOKENS = (
    ("an AWS access key", r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    ("a GitHub token", r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,})"),
    ("a GitLab token", r"\bglpat-[A-Za-z0-9_-]{16,}"),
    ("a Slack token", r"\bxox[abeoprs]-[A-Za-z0-9-]{8,}|hooks\.slack\.com/services/[A-Za-z0-9/]{12,}"),
    ("a Stripe key", r"\b[rs]k_(?:live|test)_[A-Za-z0-9]{12,}"),
    ("a Google API key", r"\bAIza[A-Za-z0-9_-]{30,}"),
    # atomic, and from the start of the word: a word with many `-eyJ` is scanned once, and not once for each of them
    (
        "a JSON web token",
        r"(?<![A-Za-z0-9_-])(?>[A-Za-z0-9_-]*?\beyJ[A-Za-z0-9_-]{6,})\.eyJ[A-Za-z0-9_-]{4,}\.?[A-Za-z0-9_-]*",
    ),
)

_WORDS = "password|passphrase|secret|token|api[_-]key|apikey"
_ENDS = (
    *_WORDS.split("|"),
    *(f"{what}{by}key" for what in ("secret", "private", "access", "signing", "encryption") for by in ("", "[_-]")),
    *("secret[_-]key[_-]base", "secretkeybase", "(?-i:[A-Z0-9]_PASS)"),
    *(f"{what}[_.-]pass" for what in ("db", "database", "pg", "postgres", "mysql", "redis", "smtp", "mail")),
    *(f"{what}[_.-]pass" for what in ("user", "admin", "app", "http", "proxy", "ssh", "ftp", "ldap")),
)
_FOLDER = r"(?:\\*[\"'])?\s*[=:]\s*[\"']?(?:[/~$]|\.{1,2}(?:[/\\]|\s|\Z)|[a-z]:[\\/])"

#: names of secrets, by their ends: `access_token`, `X-Api-Key`, `AWS_SECRET_ACCESS_KEY`. A word is scanned once, and
#: then matched backwards; otherwise the scan would start again at each of its letters. `PWD` is a folder
#: (https://pubs.opengroup.org/onlinepubs/9799919799/basedefs/V1_chap08.html), but in ODBC it is a password
SECRET_NAME = (
    r"(?<![/\w.-])[\w.-]++(?=\\*[\"']?\s*[=:])(?:"
    + "|".join(rf"(?<={end}{number})" for number in ("", r"\d", r"\d\d", r"[_-]\d") for end in _ENDS)
    + rf"|(?<=passwd)(?<!pool_passwd)|(?<=pwd)(?<!oldpwd)(?!{_FOLDER})|(?<=cookie)(?=[\"']?\s*=))(?:\\*[\"'])?"
)

#: `-u name:password` of curl (https://curl.se/docs/manpage.html#-u). Two numbers are the ids of a user and a group
#: (`docker run -u 1000:1000`), and the same name twice is not a secret
ACCOUNT_OPTION = (
    r"(?:(?<![^\s'\"`])(?:-u|--(?:proxy-)?user)(?:=|[ \t]++)|(?<=curl )-u)(?P<quote>[\"'])?"
    r"(?!\d++:\d++(?!\S))(?P<name>[^\s:'\"`]++):(?!(?P=name)(?!\w))"
)

#: a header with cookies (RFC 6265); without `=` it is prose
COOKIES = (
    r"(?<![\w-])(?:set-)?cookie(?:\\*[\"'])?[ \t]*+[:,][ \t]*+\[?(?:\\*[\"'])?"
    r"(?=[a-z0-9!#$%&*+.^_~-]++=(?!\\*[\"']))"
)

#: placeholders for secrets. The list is short on purpose: a secret that looks like a placeholder is not redacted
_STAND_IN = (
    r"(?:\[(?:redacted|filtered|masked|hidden)\]|<[a-z][\w .-]{0,60}>|\$(?:\d+|(?-i:[A-Z_][A-Z0-9_]*)|\{[a-z_]\w*\})"
    r"|\{\{? ?[a-z_][\w.-]* ?\}?\}|(?-i:%[A-Z_]+%)|\*+|x{3,}|…|\.\.\.|env:[a-z_]\w*"
    r"|null|none|nil|undefined|true|false|passed|failed|skipped|ok)"
    r"(?=[\s,;'\"`|)}\]\\]|\Z)"
)

#: positions without a value: at a placeholder and, behind a name, at the start of a list or an object
_NO_STAND_IN = rf"(?!\\*[\"'`]?(?:\[redacted\]|{_STAND_IN}))"
_NO_VALUE = rf"{_NO_STAND_IN}(?![{{\[]++(?:[\s\"'\]}}\\]|\Z))"

#: a value between quotes; the quotes stay. Without a closing quote, the value ends at the latest with its line, or with
#: the cell of its table. Between escaped quotes, as in JSON within JSON, it also ends with the text around it
_QUOTED = (
    r"(?:(?P<open>[\"'])(?:[^\"'\\\n]++|\\[^\n]|(?!(?P=open))[\"'])++(?P<close>(?P=open))"
    r"|(?P<unclosed>[\"'])(?![\s`\"'])[^\n|]++"
    r"|(?P<escaped>(?P<slashes>\\++)(?P<mark>[\"']))(?:[^\"'\\\n]++|(?!(?P=mark))[\"']|(?<=\\)[\"'\\]"
    r"|(?!(?P=slashes)(?P=mark))\\)++(?P<closed>(?P=escaped))?)"
)

#: a value without quotes. Punctuation that ends a list, an object or a sentence belongs to the value only when the
#: value goes on behind it, and not with a name of its own, as in `password=a;b` but not in `password=a;user=b`
_PLAIN = (
    r"(?:[^\s,;'\"`|)}\]\\]++|\\++(?![\"'])"
    r"|[,;|)}\]]++(?=[^\s'\"`\\])(?![{\[(]*+[\w.-]++\s*+[=:]))++"
)

#: blanks before a value. A name with a value of its own on the next line is not this value
_BLANKS = r"(?:[^\S\n]*+(?!\n)|\s*+(?![\w.-]++\s*+[=:]))"

#: a text that holds none of these, in lower case, holds no name of a secret
_NAME_SIGNS = ("pass", "pwd", "secret", "token", "key", "cookie")

#: the same for the tokens above
_TOKEN_SIGNS = (
    *("akia", "asia", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "xox", "hooks.slack.com"),
    *("_live_", "_test_", "aiza", "eyj"),
)

#: Signs and pattern of each shape. A text without any of the signs, in lower case, has no match of the pattern; most
#: texts have none, and searching them for every pattern takes ten times as long. Of a match, the `key` and the quotes
#: stay; `nothing` is text that is matched only so that it is scanned once
_SHAPES: tuple[tuple[tuple[str, ...], str], ...] = (
    # A run without `@` is matched as a whole: a match that starts inside it has no `@` either, and scanning again
    # from each `://` would take quadratic time
    (
        (":/",),
        (
            r"(?P<key>(?<=[a-zA-Z0-9+.-]):/{1,2}+)(?:[^\s/@:'\"`<>]*+:[^\s@'\"`<>]*+(?:@[^\s/@'\"`<>]*+(?=@))*+(?P<close>@)"
            r"|(?P<nothing>[^\s/@:'\"`<>]*+:[^\s@'\"`<>]*+))"
        ),
    ),
    # an option of a command line, with its value after a blank
    (
        _NAME_SIGNS,
        (
            rf"(?i)(?P<key>(?<!\S)--?(?=[\w.-]*?(?:{_WORDS}|passwd|cookie))[\w.-]*+[ =]){_NO_STAND_IN}"
            rf"(?:{_QUOTED}|(?:(?<==)|(?!-))[^\s'\"](?:[^\s'\"`]++|[\"'`]++(?!\s|\Z))*+)"
        ),
    ),
    (
        ("cookie",),
        rf"(?i)(?P<key>{COOKIES})(?:[^\n'\"`|\\=]++|=\"[^\"\n]*+\"|=|\\++(?![\"']))++",
    ),
    (
        ("-u",),  # also in --user and --proxy-user
        rf"(?i)(?P<key>{ACCOUNT_OPTION}){_NO_STAND_IN}(?(quote)[^\n'\"]++|[^\s'\"`]++)",
    ),
    (
        _NAME_SIGNS,
        (
            rf"(?i)(?P<key>{SECRET_NAME}\s*+(?>=>|[=:]){_BLANKS}(?>bearer[ \t]++)?+)"
            rf"(?!(?<=: )[a-z]{{1,3}} [a-z]){_NO_VALUE}"
            rf"(?:{_QUOTED}|{_PLAIN})"
        ),
    ),
    (
        ("password",),
        (
            r"(?i)(?P<key>\bpassword\s++E?)(?!'\[redacted\])"
            r"(?:(?P<open>')(?:[^'\n]++|'')++(?P<close>')|(?P<unclosed>')(?![\s'`])[^\n|]++)"
        ),
    ),
    (("scram-sha-256$",), r"SCRAM-SHA-256\$[^\s'\"]+"),
    (("md5",), r"\bmd5[0-9a-f]{32}\b"),
    *((_TOKEN_SIGNS, pattern) for _, pattern in TOKENS),
    (
        ("authorization", "bearer"),
        (
            r"(?i)\b(?P<key>(?:authorization(?:\\*+[\"'])?+(?:\s*+[:=])?+\s*+(?:\\*+[\"'])?+(?:bearer|basic)"
            r"|authorization(?:\\*+[\"'])?+\s*+[:=]\s*+(?:\\*+[\"'])?+token|bearer)\s++)[A-Za-z0-9._~+/=-]{8,}"
        ),
    ),
)
#: each sign once, because most of them belong to several shapes
_SIGNS = frozenset(sign for signs, _ in _SHAPES for sign in signs)


#: a name of a secret at the end of a text, whose value may be on the next line
_PENDING = re.compile(
    rf"(?i)(?:{'|'.join(_ENDS)}|passwd|pwd|cookie|authorization|bearer|basic)(?:[_-]?\d{{1,2}})?"
    r"(?:\\*[\"'])?\s*(?:=>?|:)?\s*(?:\\*[\"'])?(?:bearer|basic|token)?\Z"
)
_LONGEST_NAME = 200


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    """Compile a pattern on first use: most processes see no text that needs all of them."""
    return re.compile(pattern)


def _without_value(found: re.Match[str]) -> str:
    """Return a match with the mask in place of its value."""
    part = found.groupdict(default="").get
    if part("nothing"):
        return found[0]
    before = f"{part('key', '')}{part('open', '')}{part('unclosed', '')}{part('escaped', '')}"
    return f"{before}{MASK}{part('close', '')}{part('closed', '')}"


def _lines_of(secret: str) -> list[str]:
    """Return the lines of a secret that are secrets themselves: not the frame of a PEM file, and no short ones."""
    lines = [line.strip() for line in secret.splitlines()]
    return [line for line in lines if len(line) >= _SHORTEST_LINE and not line.startswith("-----")] * (len(lines) > 1)


def _masked(text: str, spans: Iterable[tuple[int, int]]) -> str:
    """Return a text with the mask in place of each span."""
    parts, end = [], 0
    for start, following in spans:
        parts += [text[end:start], MASK]
        end = following
    return "".join((*parts, text[end:])) if parts else text


class Redactor:
    """Removes secrets from texts: those that it has learned, and all that have the shape of one. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        #: made on first use after a call of `learn`; None until then
        self._quoted: Spellings | None = None
        self._spellings: set[str] = set()
        self._encoded = EncodedSecrets()
        #: the length of the longest spelling of a learned secret
        self.longest = 0
        #: of each spelling with several lines: its first line, its first two lines, and so on
        self._first_lines: tuple[str, ...] = ()
        #: most texts of the evidence repeat: claims, sentences of capabilities, names
        self._redacted = lru_cache(maxsize=8192)(self._redact)
        #: counts calls of `learn`; a text that was redacted before a call is redacted again after it
        self._generation = 0

    def learn(self, *secrets: str) -> None:
        """Add secrets, in every spelling of :mod:`harness.spellings`: quoted and escaped, as base64, as hex.

        Of a secret with several lines, each line is a secret of its own. Secrets of fewer than six characters, and the
        words in `ORDINARY`, are ignored.
        """
        with self._lock:
            for secret in (*secrets, *(line for text in secrets for line in _lines_of(text))):
                if len(secret) >= _SHORTEST and secret not in ORDINARY:
                    on_one_line = " ".join(secret.split())  # as the message of an error is printed
                    self._spellings |= quoted(secret)
                    self._spellings.add(on_one_line if len(on_one_line) >= _SHORTEST else secret)
                    self._encoded.add(secret)
            self._quoted = None
            self.longest = max(0, *map(len, self._spellings), self._encoded.longest) if self._spellings else 0
            self._first_lines = tuple(
                spelling[: line_end.end()]
                for spelling in self._spellings
                if "\n" in spelling
                for line_end in re.finditer(r"\n(?!\Z)", spelling)
            )
            self._generation += 1

    def __call__(self, text: str) -> str:
        """Return `text` without secrets; redacting twice changes nothing."""
        return (self._redacted if len(text) <= _LONGEST_KEPT else self._redact)(text, self._generation)

    def _learned(self) -> Spellings | None:
        """Return all spellings; None without any. The topologies of a run are learned before its use."""
        with self._lock:
            if self._quoted is None and self._spellings:
                self._quoted = Spellings(self._spellings)
            return self._quoted

    def by_value(self, text: str) -> str:
        """Return `text` without the learned secrets; other texts stay, whatever their shape."""
        if (learned := self._learned()) is None:
            return text
        text = _masked(text, self._encoded.spans(text))
        text = _masked(text, learned.spans(text))
        return self._without_beginning(text) if text.endswith(_CUT) else text

    def _without_beginning(self, text: str) -> str:
        """Return a text that was cut after a number of characters, without the beginning of a secret at its end."""
        before = text[: -len(_CUT)]
        longest = max(
            (
                length
                for spelling in tuple(self._spellings)
                for length in range(_SHORTEST, len(spelling))
                if before.endswith(spelling[:length])
            ),
            default=0,
        )
        longest = max(longest, self._encoded.beginning_at_end(before))
        return f"{before[: len(before) - longest]}{MASK}{_CUT}" if longest else text

    def before_secret(self, text: str, position: int) -> int:
        """Return a position, or the start of the learned secret around it."""
        learned = self._learned()
        found = learned.spans(text, max(0, position - self.longest)) if learned else ()
        position = next((start for start, end in found if 0 < start < position < end), position)
        return self._encoded.before(text, position) or position

    def ends_inside(self, text: str) -> bool:
        """Return whether text that follows may belong to a secret that begins at the end of these complete lines."""
        if _PENDING.search(text.rstrip()[-_LONGEST_NAME:]):
            return True
        return text.endswith(self._first_lines) or may_continue(text)

    def _redact(self, text: str, _generation: int) -> str:
        text = self.by_value(text)
        lower = text.lower()
        present = {sign for sign in _SIGNS if sign in lower}
        for signs, pattern in _SHAPES:
            # without case, some letters equal one outside ASCII: the long s, the Kelvin sign
            if not text.isascii() or not present.isdisjoint(signs):
                text = _compiled(pattern).sub(_without_value, text)
        return text


class RedactedStream:
    """Redacts a text that arrives in pieces, wherever its pieces end: the output is that of the whole text.

    Complete lines are written at once, unless a secret may continue on the next line. A line without an end is cut once
    it is long; a value that is longer than that is redacted only up to the cut, unless it was learned.
    """

    def __init__(self, redact: Redactor, write: Callable[[str], object]) -> None:
        """Begin a text.

        :param write: called with each redacted piece.
        """
        self._redact = redact
        self._write = write
        self._held = ""

    def __call__(self, piece: str) -> None:
        """Add a piece of the text."""
        self._held += piece
        if "\n" in piece:
            end = self._held.rfind("\n") + 1
            if not self._redact.ends_inside(self._held[:end]):
                self._release(end)
        while len(self._held) > _MOST_HELD + self._redact.longest:
            self._release(self._cut())

    def close(self) -> None:
        """Write what is left."""
        self._release(len(self._held))

    def _release(self, end: int) -> None:
        text, self._held = self._held[:end], self._held[end:]
        if text:
            self._write(self._redact(text))

    def _cut(self) -> int:
        """Return a position, where possible between two words, at which no secret is cut."""
        text = self._held
        last = len(text) - max(self._redact.longest, _LEAST_KEPT)
        ends = [found.end() for found in re.finditer(r"\s(?=\S)", text[:last])][-_TRIED_CUTS:]
        whole = self._redact(text)
        for end in (*reversed(ends), last):
            if self._redact(text[:end]) + self._redact(text[end:]) == whole:
                return end
        return self._redact.before_secret(text, last)
