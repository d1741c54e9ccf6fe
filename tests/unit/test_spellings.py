"""Secrets in other spellings: percent-encoded, base64 at every alignment, hex, JSON, shell, XML; also in a stream."""

from __future__ import annotations

import base64
import html
import itertools
import json
import re
import shlex
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.redaction import MASK, ORDINARY, RedactedStream, Redactor
from harness.spellings import Spellings, one_of
from tests.tables import each_row

if TYPE_CHECKING:
    from collections.abc import Callable

secrets = st.text(
    st.characters(min_codepoint=33, max_codepoint=1000, exclude_categories=("Cs", "Cc", "Zs")), min_size=6, max_size=50
).filter(lambda text: text not in ORDINARY and text not in MASK)
some_bytes = st.binary(max_size=7)


def redactor(secret: str) -> Redactor:
    redact = Redactor()
    redact.learn(secret)
    return redact


def wrapped(text: str, width: int) -> str:
    """Return a text in lines, as `base64`, `openssl` and `xxd` write it."""
    return "\n".join(text[start : start + width] for start in range(0, len(text), width)) + "\n"


@given(secrets, some_bytes, some_bytes, st.sampled_from([base64.b64encode, base64.urlsafe_b64encode]))
def test_base64_of_a_text_with_a_secret_is_redacted_at_every_alignment(
    secret: str, before: bytes, after: bytes, encode: Callable[[bytes], bytes]
) -> None:
    text = encode(before + secret.encode() + after).decode()
    redacted = redactor(secret)(f"<{text}>")
    assert MASK in redacted
    kept = redacted[1:-1].split(MASK)
    # what is left decodes to the neighbours of the secret
    assert len("".join(kept).rstrip("=")) <= (len(before) + len(after)) * 4 / 3 + 2
    assert text.startswith(kept[0])


@given(secrets, some_bytes, some_bytes, st.sampled_from([str.lower, str.upper]))
def test_hex_is_redacted(secret: str, before: bytes, after: bytes, case: Callable[[str], str]) -> None:
    text = case((before + b"\n" + secret.encode() + b"\n" + after).hex())
    redacted = redactor(secret)(text)
    assert case(secret.encode().hex()) not in redacted
    assert redacted.startswith(case((before + b"\n").hex()[:-1]))


SPELLINGS: list[Callable[[str], str]] = [
    lambda secret: quote(secret, safe=""),
    lambda secret: quote(secret, safe="").replace("%", "%25"),
    lambda secret: "".join(f"%{byte:02x}" for byte in secret.encode()),
    lambda secret: "".join(f"%{byte:02X}" for byte in secret.encode()),
    json.dumps,
    lambda secret: json.dumps(secret, ensure_ascii=False),
    lambda secret: json.dumps(json.dumps(secret)),
    lambda secret: json.dumps(secret).replace("/", r"\/"),
    shlex.quote,
    lambda secret: "'" + secret.replace("'", r"'\''") + "'",
    html.escape,
    lambda secret: html.escape(secret, quote=False),
    repr,
]


@pytest.mark.parametrize("spell", SPELLINGS)
@given(secret=secrets)
def test_an_escaped_or_quoted_secret_is_redacted(spell: Callable[[str], str], secret: str) -> None:
    text = spell(secret)
    assert text.strip("'\"\\") not in redactor(secret)(text).replace(MASK, "\0")


@each_row(
    ("secret", "spelling"),
    [
        ("it's$5", r"it\'s\$5"),  # printf %q
        ('a"b$c`d', r"a\"b\$c\`d"),  # between double quotes of a shell
        ("p<q>&'r\"", "p&lt;q&gt;&amp;&apos;r&quot;"),  # XML
        ("p/q/r/s", "p%2fq%2fr%2fs"),
        ("hunter2", "aHVudGVyMg=="),
        ("hunter2", "68756e74657232"),
        ("pass/w:rd", "pass/w%3Ard"),
        ("pass/w:rd", base64.b64encode(b"pass%2Fw%3Ard").decode()),  # of a URL
    ],
)
def test_each_spelling_is_redacted_completely(secret: str, spelling: str) -> None:
    assert redactor(secret)(f"<{spelling}>").replace("=", "") == f"<{MASK}>"


@given(secrets, st.binary(min_size=30, max_size=80), some_bytes, st.sampled_from([60, 64, 76]), st.booleans())
def test_a_wrapped_encoding_is_redacted_across_its_lines(
    secret: str, before: bytes, after: bytes, width: int, as_hex: bool
) -> None:
    data = before + secret.encode() + after
    text = data.hex() if as_hex else base64.b64encode(data).decode()
    redacted = redactor(secret)(wrapped(text, width)).replace("\n", "").replace(MASK, "\0")
    assert "\0" in redacted
    start, end = (place * (6 if as_hex else 4) // 3 for place in (len(before), len(before) + len(secret.encode())))
    assert text[start + 1 : end - 1] not in redacted


CANARY = "hunter2-Pässword/12+3"
_ENCODED = [base64.b64encode(b"." * before + CANARY.encode() + b"after") for before in range(3)] + [
    CANARY.encode().hex().encode(),
    base64.b64encode(b"." * 50 + CANARY.encode() + b"." * 50),
]
_PIECES = [
    *(text.decode() for text in _ENCODED),
    *(wrapped(text.decode(), width) for text in _ENCODED for width in (60, 76)),
    *("\n", "\r\n", " ", "x" * 60, "x" * 61 + "\n", "=", "/", "a" * 5, quote(CANARY), "aHVudGV"),
]


@given(st.lists(st.sampled_from(_PIECES), max_size=12).map("".join), st.lists(st.integers(0, 600), max_size=12))
def test_a_stream_is_redacted_like_the_whole_text_wherever_it_is_cut(text: str, cuts: list[int]) -> None:
    redact = redactor(CANARY)
    written: list[str] = []
    stream = RedactedStream(redact, written.append)
    for start, end in itertools.pairwise([0, *sorted(cuts), len(text)]):
        stream(text[start:end])
    stream.close()
    assert "".join(written) == redact(text)


@each_row("into_secret", range(1, 36, 9))  # each alignment of four characters
def test_an_encoded_secret_across_the_cut_of_a_long_line_is_redacted(into_secret: int) -> None:
    redact = redactor(CANARY)
    secret = base64.b64encode(CANARY.encode()).decode()
    text = "x" * (262_144 + redact.longest - 4096 - into_secret) + secret + "x" * 70_000
    written: list[str] = []
    stream = RedactedStream(redact, written.append)
    for start in range(0, len(text), 65_536):
        stream(text[start : start + 65_536])
    stream.close()
    assert secret[1:-3] not in "".join(written)
    assert MASK in "".join(written)


@each_row("length", range(6, 28))
def test_the_beginning_of_an_encoded_secret_is_redacted_where_a_text_was_cut(length: int) -> None:
    text = base64.b64encode(CANARY.encode()).decode()
    assert redactor(CANARY)(f"key {text[:length]}…").startswith(f"key {MASK}")


@given(secrets, st.text(st.characters(max_codepoint=127), max_size=200))
def test_redacting_encoded_secrets_twice_changes_nothing(secret: str, text: str) -> None:
    redact = redactor(secret)
    once = redact(text + base64.b64encode(secret.encode()).decode() + text)
    assert redact(once) == once


@pytest.mark.parametrize("text", ["aHVudGVSMg==", "deadbeef" * 8, "/usr/lib/x86_64-linux-gnu/libpq.so.5", "%41%42"])
def test_other_encoded_texts_stay(text: str) -> None:
    assert redactor("hunter2")(text) == text


@given(st.lists(st.text("ab.$", min_size=1), min_size=1), st.text("ab.$"))
def test_the_merged_pattern_matches_like_the_list_of_texts(texts: list[str], text: str) -> None:
    plain = re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True))))
    merged = re.compile(one_of(texts))
    assert [found.span() for found in merged.finditer(text)] == [found.span() for found in plain.finditer(text)]


@given(st.sets(st.text("ab", min_size=1, max_size=12), min_size=1, max_size=8), st.text("abc", max_size=80))
def test_texts_are_found_as_a_pattern_of_all_of_them_finds_them(texts: set[str], text: str) -> None:
    assert list(Spellings(texts).spans(text)) == [found.span() for found in re.finditer(one_of(texts), text)]
