from __future__ import annotations

import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from harness.markdown.blocks import split_cells
from harness.markdown.inline import Span, SpanKind, plain, spans
from harness.markdown.tables import Kind, Table, read_document
from harness.report.escape import code, text

MARKDOWN = MarkdownIt("commonmark").enable("table")
_PIECES = [
    *"|`\\*_[]()<>&!#~\n\r\t -.:/ax0\x00\u2028",
    "http://",
    "&amp;",
    "<!--",
    "-->",
    "```",
    "|---|\n",
    "\r\n",
    "<br>",
]
hostile = st.lists(st.sampled_from(_PIECES), max_size=40).map("".join)


def only(document: str) -> Table:
    tables = read_document(document).tables
    assert len(tables) == 1
    return tables[0]


def seen(value: str) -> str:
    """What a reader can see of a value in one line."""
    line = re.sub(r"\s*[\r\n\u2028\u2029\x0b\x0c\x85]+\s*", " ", value)
    line = re.sub(r"[\x00-\x08\x0e-\x1f\x7f]", "\ufffd", line)
    return re.sub(r"\s+", " ", line).strip()


# --- any text ---------------------------------------------------------------------------------------------


@given(st.one_of(st.text(max_size=200), hostile))
def test_no_text_is_too_strange_to_be_read(value: str) -> None:
    document = read_document(value)
    assert len(document.lines) == len(document.plainly)
    for table in document.tables:
        assert 1 <= table.line < table.last_line <= len(document.lines)
        assert all(len(row.cells) == len(table.header) for row in table.rows)
        document.below(table)
        for row in table.rows:
            assert all(isinstance(cell.text, str) for cell in row.cells)


@given(hostile)
def test_what_the_report_escapes_is_read_back(value: str) -> None:
    table = only(f"| a | b |\n|---|---|\n| {text(value)} | {code(value)} |\n")
    as_text, as_code = table.rows[0].cells
    assert seen(as_text.text) == seen(value)
    if seen(value).strip("` "):
        assert seen(as_code.text) == seen(value)
        assert [span.kind for span in as_code.spans] == [SpanKind.CODE]


@given(st.lists(hostile.map(lambda each: each.replace("<", "").replace("[", "")), min_size=2, max_size=2))
def test_rows_have_the_cells_that_a_reader_of_markdown_sees(values: list[str]) -> None:
    row = "| " + " | ".join(re.sub(r"[\r\n\x00\u2028\t]|~~~|```|<!--|-->", "", each) or "x" for each in values) + " |"
    rendered = MARKDOWN.render(f"| a | b |\n|---|---|\n{row}\n")
    expected = [html.unescape(re.sub(r"<[^>]*>", "", each)) for each in re.findall(r"<td>(.*?)</td>", rendered)]
    found = only(f"| a | b |\n|---|---|\n{row}\n").rows[0].cells
    assert len(found) == len(expected)
    # which stars and underlines emphasise is the renderer's affair
    strip = str.maketrans("", "", "*_~ ")
    assert [cell.text.translate(strip) for cell in found] == [each.translate(strip) for each in expected]


# --- what is a table ----------------------------------------------------------------------------------------


def test_lines_count_from_one_and_a_byte_order_mark_counts_nothing() -> None:
    table = only("\ufeff| a | b |\r\n|:--|--:|\r\n| 1 | 2 |\r\n| 3 | 4 |\r\n\r\nafter\r\n")
    assert (table.line, table.last_line) == (1, 4)
    assert [row.line for row in table.rows] == [3, 4]
    assert [[cell.text for cell in row.cells] for row in table.rows] == [["1", "2"], ["3", "4"]]


@pytest.mark.parametrize(
    "document",
    [
        "a | b\n---|---\n1 | 2",
        "   | a | b |\n   |---|---|\n   | 1 | 2 |",
        "before\n\n| a | b |\n| :-: | - |\n| 1 | 2 |\n\nprose without a pipe",
        "right above\n| a | b |\n|---|---|\n| 1 | 2 |\n|\n| 3 | 4 |",
        "- | a | b |\n  |---|---|\n  | 1 | 2 |\n| 3 | 4 |",
        "1. x\n\n      | a | b |\n      |---|---|\n      | 1 | 2 |\n".replace("      ", "   "),
        "- x\n  - y\n\n    | a | b |\n    |---|---|\n    | 1 | 2 |\n",
        "| a | b |\n|---|---|\n| 1 | 2 |\n    | 3 | 4 |",
        "| a | b |\n|---|---|\n| 1 | 2 |\n<div>\n| 3 | 4 |",
        "| a | b |\n|---|---|\n| 1 | 2 |\n2. | 3 |",
        "| a | b |\r|---|---|\r| 1 | 2 |\r",
        "| a | b |\n|---|---|\n| 1 | 2 |\n# heading | x",
    ],
)
def test_tables_come_in_many_spellings(document: str) -> None:
    table = only(document)
    assert table.header == ("a", "b")
    assert [[cell.text for cell in row.cells] for row in table.rows] == [["1", "2"]]


@pytest.mark.parametrize(
    "document",
    [
        "```\n| a | b |\n|---|---|\n| 1 | 2 |\n```",
        "~~~~ text\n| a | b |\n|---|---|\n~~~\n| a | b |\n|---|---|\n~~~~",
        "<!--\n| a | b |\n|---|---|\n| 1 | 2 |\n-->",
        "<pre>\n| a | b |\n|---|---|\n</pre>",
        "    | a | b |\n    |---|---|",
        "| a | b |\n|---|\n",
        "a\n---\n",
        "| a | b |",
        "1. list\n\n   ```\n   | a | b |\n   |---|---|\n   ```",
        "- ```\n  | a | b |\n  |---|---|\n\n  | a | b |\n  |---|---|",
        "> | a | b |\n> |---|---|",
        "<div>\n| a | b |\n|---|---|",
        "a\n|---|---|\n| a | b |\n|---|---|",
        "- x\n | a | b |\n  |---|---|",
        "<?x\n\n| a | b |\n|---|---|",
    ],
)
def test_what_only_looks_like_a_table_is_none(document: str) -> None:
    assert read_document(document).tables == ()


@pytest.mark.parametrize(
    "above",
    [
        "```sh\nx\n```",
        "- ```sh\n  x\n  ```",
        "1. ```sh\n   x\n   ```",
        "10) ```sh\n    x\n    ```",
        "* ~~~\n  x\n  ~~~",
        "+ ```\n  x",
        "- a\n  - ```sh\n    x\n    ```",
        "- - ```sh\n    x\n    ```",
        "- a\n\n      ```\n  b",
        "-\t```sh\n\tx\n\t```",
        "> - ```sh\n>   x",
        "- > ```sh\n  > x",
        "> ```",
        "text\n\n    ```\n    code",
        "text\n    ```\n    more",
        "\t```",
        "```sh `x`",
        "x\n2. ```",
        "-\n\n  x\n-\n\n      ```",
        "<pre>\nx\n</script>",
        "<SCRIPT>\nx </Style> y",
        "<div>\n```",
        "<b>\n```",
        "<!-- x\n```\n-->",
        "<?x ```\n```\n?>",
        "<!DOCTYPE\n```\n>",
        "<![CDATA[\n```\n]]>",
        "<prefix>\n```",
    ],
)
def test_what_is_closed_hides_nothing_behind_it(above: str) -> None:
    assert only(f"{above}\n\n| a |\n|---|\n| 1 |").line == above.count("\n") + 3


@pytest.mark.parametrize("line", ["    x", "- ~~~", "1. <!--\n   x", "\tx", ">     x", "<style>x"])
def test_code_and_comments_are_not_read_in_lists_and_quotes_either(line: str) -> None:
    assert not any(read_document(line).plainly)


_MARKS = st.lists(st.sampled_from(["- ", "1. ", "2) ", "* ", "-", " ", "  ", "    ", "\t"]), max_size=4).map("".join)
_TEXTS = st.sampled_from(["", "", "x", "```", "````", "~~~", "~~~ x", "``` `", "# x", "---", "===", "<!-- x -->"])
_LINES = st.builds("{}{}".format, _MARKS, _TEXTS)


@given(st.lists(_LINES, max_size=12))
def test_code_is_where_another_reader_of_markdown_sees_it(lines: list[str]) -> None:
    tokens = MARKDOWN.parse("\n".join(lines))
    code = {n for each in tokens if each.type in {"fence", "code_block"} and each.map for n in range(*each.map)}
    words = {n for each in tokens if each.type == "inline" and each.map for n in range(*each.map)}
    plainly = read_document("\n".join(lines)).plainly
    assert [n for n in sorted(code) if plainly[n] and lines[n].strip(" \t>")] == []
    assert [n for n in sorted(words - code) if not plainly[n]] == []


@pytest.mark.parametrize("row", ["POST /z", "<b>POST</b> /z | HTTP", "1 \\| 2", "   2.x"])
def test_any_line_below_a_table_is_a_row_unless_it_begins_another_block(row: str) -> None:
    table = only(f"| a | b |\n|---|---|\n{row}\n| 3 | 4 |\n\nprose")
    assert [each.line for each in table.rows] == [3, 4]


def test_pipes_behind_a_backslash_belong_to_their_cell() -> None:
    assert split_cells(r"| a \| b | `c \| d` |") == ["a | b", "`c | d`"]
    assert split_cells("| a || b |") == ["a", "", "b"]


def test_cells_that_are_missing_are_empty_and_surplus_is_counted() -> None:
    short, long = only("| a | b |\n|---|---|\n| 1 |\n| 1 | 2 | 3 |").rows
    assert [cell.text for cell in short.cells] == ["1", ""]
    assert long.surplus == 1


# --- cells --------------------------------------------------------------------------------------------------


def test_a_cell_is_told_without_its_markup() -> None:
    raw = r"**bold** _it_ `co|de` [la**b**el](a/b.md#c) <https://x.org> a\_b pool_size 2 * 3 &lt;t&gt;<a id=\"x\"></a>"
    assert plain(raw) == "bold it co|de label https://x.org a_b pool_size 2 * 3 <t>"


def test_code_links_and_breaks_are_told_apart() -> None:
    assert spans("a `` b ` c `` [d](e 'f') [g](<h i>)<br/>[j](k_(l).md \"m\")") == (
        Span(SpanKind.TEXT, "a "),
        Span(SpanKind.CODE, "b ` c"),
        Span(SpanKind.TEXT, " [d](e 'f') "),
        Span(SpanKind.LINK, "g", "h i"),
        Span(SpanKind.BREAK, ""),
        Span(SpanKind.LINK, "j", "k_(l).md"),
    )


# --- which table it is ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "kind"),
    [
        ("| Environment | Class (CI or host) | Chain | Pooler product | Pool mode | Matches prod |", Kind.TOPOLOGY),
        ("| **environment** | CLASS | pool mode | `Sandbox note` |", Kind.TOPOLOGY),
        (r"| Path | Kind (HTTP \| job) | Status (OK \| Issue) | Evidence / pointer | Notes (if N/A) |", Kind.PATHS),
        ("| Question | Answer | Matches prod? |", Kind.QUESTIONS),
        ("| Checklist item (summary) | Status | Evidence |", Kind.CHECKLIST),
        ("| Item | Status | Evidence / notes |", Kind.PREFLIGHT),
        ("| Check | Status | Evidence |", Kind.PARITY),
        ("| P | ID | Symptom | Likely area | Owner | Link |", Kind.ISSUES),
        ("| Environment | Engine | Servers | Ready after |", None),
        ("| Check | P | Claim | direct |", None),
        ("| Name | Status |", None),
    ],
)
def test_a_table_is_known_by_its_columns(header: str, kind: Kind | None) -> None:
    table = only(f"{header}\n|{'---|' * len(split_cells(header))}\n")
    assert table.kind is kind


def test_a_marker_names_the_next_table_of_its_section() -> None:
    document = read_document(
        "# A\n\n**STG-HOST-TOPOLOGY-TEMPLATE**\n\nsome prose\n\n| Env | Mode |\n|---|---|\n| a | b |\n\n"
        "STG-AUDITED-PATH-RUBRIC\n\n# B\n\n| x | y |\n|---|---|\n\nsee STG-AUDITED-PATH-RUBRIC above\n"
    )
    assert [table.kind for table in document.tables] == [Kind.TOPOLOGY, None]
    assert document.markers == ((3, Kind.TOPOLOGY), (11, Kind.PATHS))
    assert document.marked(11) is None


def test_columns_win_over_a_marker() -> None:
    header = "| Question | Answer | Matches prod? |\n|---|---|---|\n"
    assert only(f"STG-HOST-TOPOLOGY-TEMPLATE\n\n{header}").kind is Kind.QUESTIONS


# --- around a table -------------------------------------------------------------------------------------------


def test_what_is_below_a_table_ends_with_its_section() -> None:
    document = read_document(
        "# One\n\n## Two\n\n| a |\n|---|\n| 1 |\n\nright below\nit\n\n- a list\n\n### staging\n\ndiffers\n\n## Three\n\nnot this\n"
    )
    assert [(each.line, each.text) for each in document.below(document.tables[0])] == [
        (9, "right below it"),
        (12, "- a list"),
        (16, "staging differs"),
    ]


def test_headings_and_what_links_may_name() -> None:
    document = read_document(
        '# A, b & `c`!\n\nSet\n===\n\nSub\n---\n\n## Set ##\n\n```\n# no\n```\n\n<a id="Row.1"></a>\n'
    )
    assert [(each.line, each.level, each.title) for each in document.headings] == [
        (1, 1, "A, b & c!"),
        (3, 1, "Set"),
        (6, 2, "Sub"),
        (9, 2, "Set"),
    ]
    assert document.anchors() == {"a-b--c", "set", "sub", "set-1", "row.1"}
