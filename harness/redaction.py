"""Secrets out, before a byte is written or printed.

Two nets: every secret that the run itself made or was given, by value; and the shapes that
secrets take in other people's messages (URLs with credentials, conninfo passwords, SCRAM verifiers).
"""

from __future__ import annotations

import json
import re
from threading import Lock
from urllib.parse import quote, quote_plus

MASK = "[redacted]"

#: A password shorter than this is not searched for by value: it would blank out ordinary text.
_SHORTEST = 6

#: what tokens look like that say themselves whose they are
TOKENS = (
    ("an AWS access key", r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    ("a GitHub token", r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,})"),
    ("a GitLab token", r"\bglpat-[A-Za-z0-9_-]{16,}"),
    ("a Slack token", r"\bxox[abeoprs]-[A-Za-z0-9-]{8,}|hooks\.slack\.com/services/[A-Za-z0-9/]{12,}"),
    ("a Stripe key", r"\b[rs]k_(?:live|test)_[A-Za-z0-9]{12,}"),
    ("a Google API key", r"\bAIza[A-Za-z0-9_-]{30,}"),
    ("a JSON web token", r"\beyJ[A-Za-z0-9_-]{6,}\.eyJ[A-Za-z0-9_-]{4,}\.?[A-Za-z0-9_-]*"),
)

_SHAPES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"(?P<scheme>\b[a-zA-Z][a-zA-Z0-9+.-]*://)[^\s/@'\"`<>]*:[^\s@'\"`<>]*@"), rf"\g<scheme>{MASK}@"),
    (
        re.compile(
            r"(?i)(?P<key>(?<![/\w.-])(?:[a-z_]*password|passwd|pgpassword|sslpassword|api_?key|secret|token)\b[\"']?\s*[=:]\s*)"
            r"(?:'(?:[^'\\]|\\.)+'|\"(?:[^\"\\]|\\.)+\"|(?!\[redacted\])[^\s,;'\"`|)}\]]+)"
        ),
        rf"\g<key>{MASK}",
    ),
    # an option of a command line, its value after a blank
    (
        re.compile(
            r"(?i)(?P<key>(?<!\S)--?[a-z-]*(?:password|passwd|secret|token|api-?key)[a-z-]*[ =])"
            r"(?!\[redacted\])[^\s'\"-]\S*"
        ),
        rf"\g<key>{MASK}",
    ),
    (re.compile(r"(?i)(?P<key>\bpassword\s+)(?:E?'(?:[^']|'')*')"), rf"\g<key>{MASK}"),
    (re.compile(r"SCRAM-SHA-256\$[^\s'\"]+"), MASK),
    (re.compile(r"\bmd5[0-9a-f]{32}\b"), MASK),
    (re.compile("|".join(pattern for _, pattern in TOKENS)), MASK),
    (
        re.compile(r"(?i)\b(?P<key>authorization:?\s+(?:bearer|basic)\s+|bearer\s+)[A-Za-z0-9._~+/=-]{8,}"),
        rf"\g<key>{MASK}",
    ),
)


class Redactor:
    """Knows the run's secrets and takes them out of text. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._pattern: re.Pattern[str] | None = None
        self._spellings: set[str] = set()

    def learn(self, *secrets: str) -> None:
        """Remember secrets in every spelling they may be printed in."""
        with self._lock:
            for secret in secrets:
                if len(secret) >= _SHORTEST:
                    self._spellings |= {
                        secret,
                        quote(secret, safe=""),
                        quote_plus(secret),
                        json.dumps(secret)[1:-1],
                        json.dumps(secret, ensure_ascii=False)[1:-1],
                        secret.replace("'", "''"),
                        repr(secret)[1:-1],
                    }
            longest_first = sorted(self._spellings, key=len, reverse=True)
            self._pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def __call__(self, text: str) -> str:
        """Return `text` without secrets; redacting twice changes nothing."""
        if self._pattern:
            text = self._pattern.sub(MASK, text)
        for shape, replacement in _SHAPES:
            text = shape.sub(replacement, text)
        return text
