"""Text that leaves the program controls no terminal, reorders nothing, and holds no secret."""

from __future__ import annotations

import io
import json
import re
import unicodedata
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from harness.cli.output import Stdout, command_stream, data_stream
from harness.cli.terminal import Terminal
from harness.printable import printable, printable_with_colours
from harness.redaction import MASK, Redactor

if TYPE_CHECKING:
    import pytest

#: written here once more, by Unicode's own classes
_BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_HOSTILE = [
    "\x1b]52;c;c2VjcmV0\x07",
    "\x1b]0;title\x07",
    "\x1b[2J",
    "\x1b[31mred\x1b[0m",
    "\x9b2J",
    "\x7f",
    "\r",
    "\u2028",
]
hostile = st.lists(
    st.one_of(st.text(max_size=5), st.sampled_from([*_HOSTILE, *_BIDI, "\n", "\r\n", "\t"])), max_size=12
)
hostile_text = hostile.map("".join)


def controls_of(text: str) -> list[str]:
    """Return the characters of a text that a terminal does not show as they are; lines and tabs are allowed."""
    text = text.replace("\r\n", "\n")
    return [
        character
        for character in text
        if character in _BIDI
        or (unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} and character not in "\n\t")
    ]


class Stream(io.StringIO):
    def __init__(self, *, terminal: bool) -> None:
        super().__init__(newline="")
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


@given(hostile_text)
def test_printable_text_has_no_control_characters_and_is_stable(text: str) -> None:
    shown = printable(text)
    assert controls_of(shown) == []
    assert printable(shown) == shown


@given(st.text(st.characters(exclude_categories=["Cc", "Cs", "Cf", "Zl", "Zp"])))
def test_other_text_is_unchanged(text: str) -> None:
    assert printable(text) == text
    assert printable_with_colours(text) == text


@given(hostile_text.filter(lambda text: text.isprintable() or not re.search("[\ud800-\udfff]", text)))
def test_a_json_document_keeps_its_meaning(text: str) -> None:
    document = json.dumps({"value": text}, ensure_ascii=False)
    assert json.loads(printable(document)) == {"value": text}


@given(hostile_text, st.booleans())
def test_every_line_that_leaves_the_program_is_harmless(text: str, terminal: bool) -> None:
    stdout, stderr = Stream(terminal=terminal), io.StringIO(newline="")
    out = Stdout(stdout, str)
    out.write(text)
    out.writelines([text, text])
    Terminal(str, stderr).say(text)
    assert controls_of(stdout.getvalue()) == []
    assert controls_of(stderr.getvalue()) == []


@given(hostile_text)
def test_data_is_harmless_on_a_terminal_and_unchanged_elsewhere(text: str) -> None:
    terminal, pipe = Stream(terminal=True), Stream(terminal=False)
    for stream in (terminal, pipe):
        Stdout(stream, str).data(printable).write(text)
    assert controls_of(terminal.getvalue()) == []
    assert pipe.getvalue() == text


@given(hostile_text)
def test_a_command_may_only_use_colours_on_a_terminal(text: str) -> None:
    terminal, pipe = Stream(terminal=True), Stream(terminal=False)
    for stream in (terminal, pipe):
        Stdout(stream, str).data(printable_with_colours).write(text)
    assert controls_of(re.sub(r"\x1b\[[0-9;:]*m|\r", "", terminal.getvalue())) == []
    assert pipe.getvalue() == text


def test_colours_of_a_command_stay() -> None:
    text = "\x1b[1;31mred\x1b[0m 50 %\r100 %\x1b]0;title\x07\n"
    assert printable_with_colours(text) == "\x1b[1;31mred\x1b[0m 50 %\r100 %\\x1b]0;title\\x07\n"


def test_stdout_prints_no_learned_secret() -> None:
    redact, stream = Redactor(), Stream(terminal=False)
    redact.learn("s3cr3t-c4n4ry")
    Stdout(stream, redact.by_value).write("tcp://admin:s3cr3t-c4n4ry@host\n")
    assert stream.getvalue() == f"tcp://admin:{MASK}@host\n"


def test_without_the_command_line_data_goes_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    data_stream().write("\x1b[2J")
    command_stream().write("\x1b[2J")
    assert capsys.readouterr().out == "\x1b[2J" * 2
