"""Secrets in code: the redaction shapes, without what only looks like one.

A document should not even contain a password of an example; code and its tests do. So a match counts only when its
value looks made by a generator, or belongs to a server that is not local.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.lint.secrets import SHAPES
from harness.redaction import TOKENS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

#: cheap to search: without any of these, no shape matches
_HINT = re.compile(
    rb"(?i)pass|pwd|secret|token|key|://|bearer|authorization|scram-|md5[0-9a-f]{32}|akia|asia|gh[pousr]_|glpat-"
    rb"|xox[a-z]-|[rs]k_(?:live|test)_|aiza|eyj|-----begin|--user|\s-u"
)
_ISSUED = frozenset(name for name, _ in TOKENS)
_NOT_SECRET = frozenset(
    {"an internal network address", "a connection string", "an address of the local machine", "cookies"}
)
#: words of examples and of development defaults
_MADE_UP = re.compile(
    r"(?i)example|sample|dummy|fake|test|demo|placeholder|change|replace|your|redacted|secret|passw|default|local|dev"
    r"|xxxx|0000|1234|abcd|deadbeef|foobar|s3cr3t|hunter2|postgres|\.\.\.|…"
)
_LOCAL_HOST = re.compile(
    r"(?i)(?:localhost|127\.[\d.]+|\[?::1\]?|0\.0\.0\.0|host\.docker\.internal|[a-z0-9_-]+|.*\bexample(?:\.\w+)*"
    r"|.*\.(?:test|invalid|local|localhost|internal))"
)
_URL = re.compile(r"://[^\s/@:]*:(?P<password>[^\s@]+)@(?P<host>\[[^\]]*\]|[^\s:/?#'\"`]*)?")
_VALUE = re.compile(
    r"[=:]\s*\\*[\"'`]?(?P<value>[^\s\"'`|,;)]+)\\*[\"'`]?\s*[,;)}\]]*\s*$|[=:]\s*\\*[\"'`](?P<quoted>[^\"'`]+)\\*[\"'`]"
)
_ALLOWED_LINE = re.compile(r"gitleaks:allow|pragma: allowlist secret")
_SHORTEST = 16
#: bits for each character; English words have less, random base64 has about 5
_LEAST_ENTROPY = 3.4
#: a longer line is searched in parts of this size, which overlap by the length of a secret
_LONGEST_LINE, _OVERLAP = 4_000, 500


class Secret(Struct, frozen=True):
    """The shape of a secret; never the secret."""

    shape: str
    #: whether the line is marked as allowed
    marked: bool = False


def secrets_in(data: bytes, defaults: Collection[str]) -> Iterator[Secret]:
    """Return the secrets of a line, by their shapes.

    :param defaults: values that are documented development defaults.
    """
    found: set[str] = set()
    for start in range(0, max(len(data) - _OVERLAP, 1), _LONGEST_LINE - _OVERLAP):
        part = data[start : start + _LONGEST_LINE]
        if _HINT.search(part):
            for secret in _in_part(part.decode("utf-8", errors="replace"), defaults):
                if secret.shape not in found:
                    found.add(secret.shape)
                    yield secret


def _in_part(text: str, defaults: Collection[str]) -> Iterator[Secret]:
    taken: list[tuple[int, int]] = []
    for shape in SHAPES:
        if shape.name in _NOT_SECRET:
            continue
        for first, last in shape.matches(text):
            if any(start < last and first < end for start, end in taken):
                continue
            taken.append((first, last))
            matched = text[first:last]
            if not any(default in matched for default in defaults) and _counts(shape.name, matched, text, first, last):
                yield Secret(shape.name, marked=bool(_ALLOWED_LINE.search(text)))
                break


def _counts(shape: str, matched: str, text: str, first: int, last: int) -> bool:
    if shape in _ISSUED:
        return not re.search(r"(?i)example|xxxx|your|0{8}|1234567890", matched) and _entropy(matched) > 3.0  # noqa: PLR2004
    if shape == "a private key":
        after = text[last:]
        alone = not after.strip(" \t\r\n\"'`,;\\n") and not text[:first].strip(" \t\"'`")
        return alone or bool(re.match(r"(?:\\n|\s)+[A-Za-z0-9+/=]{20,}", after))
    if shape == "a URL with a password":
        return _of_a_server(text[max(0, first - 1) : last + 200])
    if shape == "a password verifier":
        return not _MADE_UP.search(matched) and _entropy(matched) > _LEAST_ENTROPY
    if shape == "a secret":
        return _is_literal(text[first : last + 2])
    return _is_random(re.split(r"[=:\s]+", matched)[-1])


def _of_a_server(text: str) -> bool:
    match = _URL.search(text)
    if match is None or _MADE_UP.search(match["password"]) or _LOCAL_HOST.fullmatch(match["host"] or "x"):
        return False
    password = match["password"]
    return not re.search(r"[{}<>$*%(]", password) and len(set(password)) > 3 and _host(match["host"])  # noqa: PLR2004


def _host(name: str) -> bool:
    return bool(re.fullmatch(r"(?i)[a-z0-9-]+(?:\.[a-z0-9-]+)+", name))


def _is_literal(assigned: str) -> bool:
    """Say whether a name is assigned a value that looks generated, as a literal."""
    match = _VALUE.search(assigned)
    return bool(match) and _is_random(match["value"] or match["quoted"] or "") if match else False


def _is_random(value: str) -> bool:
    if len(value) < _SHORTEST or _MADE_UP.search(value) or not re.fullmatch(r"[A-Za-z0-9+/=_.~!@#^&*-]+", value):
        return False
    if value.startswith(("/", "./", "http")) or re.fullmatch(r"[\d.]+|(?:[A-Za-z]+[\d]?[._/-])+[A-Za-z]+\d?", value):
        return False
    kinds = sum(bool(re.search(pattern, value)) for pattern in (r"[a-z]", r"[A-Z]", r"\d"))
    return kinds > 1 and bool(re.search(r"\d", value)) and _entropy(value) >= _LEAST_ENTROPY


def _entropy(text: str) -> float:
    counts = Counter(text)
    return -sum(count / len(text) * math.log2(count / len(text)) for count in counts.values())
