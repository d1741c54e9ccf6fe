"""Text from outside in Markdown cells, as a CommonMark parser renders them."""

from __future__ import annotations

import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from harness.printable import one_line
from harness.report.escape import Ready, code, link, text

MARKDOWN = MarkdownIt("commonmark").enable("table")
_PIECES = [
    *"|`\\*_[]()<>&!#~\n\r\t -.:/ax0\x00\u2028\x1b\x9b\x7f\u202e\u2066\u200f\u061c",
    "http://",
    "&amp;",
    "</td>",
    "www.x.y",
]
hostile = st.lists(st.sampled_from(_PIECES), max_size=30).map("".join)


def cells(*values: str) -> list[str]:
    """Render a one-row table as a reader would, and return its cells."""
    rendered = MARKDOWN.render("| a | b |\n|---|---|\n| " + " | ".join(values) + " |\n")
    return re.findall(r"<td>(.*?)</td>", rendered, re.DOTALL)


def plain(value: str) -> str:
    """Return what a reader sees of a value, in one line."""
    line = re.sub(r"\s*[\r\n\u2028\u2029\x0b\x0c\x85]+\s*", " ", value)
    line = re.sub(r"[\x00-\x08\x0e-\x1f\x7f\x9b\u202e\u2066\u200f\u061c]", "\ufffd", line)
    return re.sub(r"\s+", " ", line).strip()


@given(hostile)
def test_text_stays_in_its_cell_without_markup(value: str) -> None:
    found = cells(text(value), "end")
    assert len(found) == 2
    assert found[1] == "end"
    assert "<" not in found[0]
    assert re.sub(r"\s+", " ", html.unescape(found[0])).strip() == plain(value)


@given(hostile)
def test_a_code_span_stays_in_its_cell_unchanged(value: str) -> None:
    found = cells(code(value), "end")
    assert len(found) == 2
    assert found[1] == "end"
    inside = re.sub(r"</?code>", "", found[0])
    if plain(value).strip("` "):
        assert re.sub(r"\s+", " ", html.unescape(inside)).strip() == plain(value)


@pytest.mark.parametrize(
    "target", ["javascript:alert(1)", "data:text/html,x", "https://x/ )", 'https://x/"onload', "//evil"]
)
def test_only_web_addresses_become_links(target: str) -> None:
    assert "](" not in link("label", target)


def test_the_label_of_a_link_is_escaped() -> None:
    assert link("a|b", "https://example.org/x#y") == "[a\\|b](https://example.org/x#y)"
    assert isinstance(text(Ready("**b**")), Ready)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("expected 1\n::error::forged", "expected 1 ::error::forged"),
        ("a \r\n  ::stop-commands::x\rb", "a ::stop-commands::x b"),
        ("one line", "one line"),
    ],
)
def test_a_text_of_evidence_begins_no_line_of_a_log(text: str, shown: str) -> None:
    assert one_line(text) == shown
