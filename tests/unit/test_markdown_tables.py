"""How Markdown documents are read, compared with markdown-it-py's own parser without our additions."""

from __future__ import annotations

import html
import itertools
import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from harness.errors import ConfigError
from harness.markdown.adoption import TableKind
from harness.markdown.document import Table, TableCell, read_document
from harness.markdown.inline import Span, SpanKind, plain_text, spans
from harness.report.escape import code, text
from tests.growth import is_linear
from tests.tables import each_row

if TYPE_CHECKING:
    from markdown_it.token import Token

MARKDOWN = MarkdownIt("commonmark").enable(["strikethrough", "table"])
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
#: pieces of which many documents have tables, in and around code, comments, lists and quotes
_BLOCKS = [
    "| a | b |\n|---|---|\n",
    "a | b\n:-|-:\n",
    "|a|\n|-|\n",
    "| 1 | 2 |",
    "| `x\\|y` | \\\\| |",
    "| 1 |",
    "|",
    "||",
    "x | y | z",
    "\n",
    "\n\n",
    "\r\n",
    "\r",
    "- ",
    "1. ",
    "> ",
    "  ",
    "    ",
    "\t",
    "\xa0",
    "\u2028",
    "\x0b",
    "\x00",
    "```\n",
    "~~~\n",
    "<!--",
    "-->",
    "<!-- x -->\n",
    "<div>\n",
    "<pre>\n",
    "</pre>\n",
    "<?x\n",
    "[r]: u\n",
    "# h\n",
    "---\n",
    "text\n",
    "\\",
    "\ufeff",
]
_CELLS = [
    "a",
    " b ",
    "",
    "\t",
    "\x0bc\x0b",
    "\xa0d\u2028",
    "\\|",
    " `e\\|f` ",
    "\\\\",
    "\\\\|",
    "\\",
    "~~g~~",
    "\x00",
    "\x85i\x1c",
]
_ROWS = st.builds(
    "{}{}{}".format,
    st.sampled_from(["", "|", " | ", "\x0b|"]),
    st.lists(st.sampled_from(_CELLS), min_size=1, max_size=4).map("|".join),
    st.sampled_from(["", "|", " |\t", "|\xa0"]),
)


def _table(mark: str, header: list[str], rows: list[str], indent: str, end: str) -> str:
    lines = [f"{mark}|{'|'.join(header)}|", f"{indent}|{'-|' * len(header)}", *(indent + row for row in rows)]
    return end.join([*lines, ""])


_TABLES = st.builds(
    _table,
    st.sampled_from(["", "", "", "- ", "> ", "    "]),
    st.lists(st.sampled_from(["a", " b ", "\\|", ""]), min_size=1, max_size=3),
    st.lists(_ROWS, max_size=4),
    st.sampled_from(["", "", "", "  ", "> "]),
    st.sampled_from(["\n", "\n", "\r\n", "\r"]),
)
documents = st.lists(st.one_of(st.sampled_from(_BLOCKS), _TABLES), max_size=12).map("".join)


def only(document: str) -> Table:
    tables = read_document(document).tables
    assert len(tables) == 1
    return tables[0]


def texts(table: Table) -> list[list[str]]:
    return [[cell.text for cell in row.cells] for row in table.rows]


def seen(value: str) -> str:
    """What a reader can see of a value in one line."""
    line = re.sub(r"\s*[\r\n\u2028\u2029\x0b\x0c\x85]+\s*", " ", value)
    line = re.sub(r"[\x00-\x08\x0e-\x1f\x7f]", "\ufffd", line)
    return re.sub(r"\s+", " ", line).strip()


def unquoted(tokens: list[Token]) -> list[Token]:
    """Return the tokens outside of block quotes."""
    quotes, found = 0, []
    for token in tokens:
        quotes += token.nesting if token.type.startswith("blockquote_") else 0
        if not quotes:
            found.append(token)
    return found


def lines_of(tokens: list[Token], *types: str) -> set[int]:
    return {line + 1 for token in tokens if token.type in types and token.map for line in range(*token.map)}


# --- any text ---------------------------------------------------------------------------------------------


@given(st.one_of(st.text(max_size=90), hostile, documents))
def test_any_text_can_be_read(value: str) -> None:
    document = read_document(value)
    assert document.opaque_lines <= set(range(1, len(document.lines) + 1))
    for table in document.tables:
        assert 1 <= table.line < table.last_line <= len(document.lines)
        assert all(len(row.cells) == len(table.header) for row in table.rows)
        assert all(prose.line > table.last_line for prose in document.prose_below(table))


@given(documents)
@example("| a |\n|-|\n|\n")
@example("- | a \\| b | c |\n  |-|-|\n  | 1 |")
def test_cells_are_those_of_the_parser_and_are_found_in_the_source(value: str) -> None:
    """All cells of markdown-it-py are cells here, and their positions give their source text."""
    tokens = unquoted(MARKDOWN.parse(value.removeprefix("\ufeff")))
    cells = [
        (following.map[0] + 1, following.content)
        for token, following in itertools.pairwise(tokens)
        if token.type in {"th_open", "td_open"} and following.map
    ]
    document = read_document(value)
    found = [cell for table in document.tables for row in (table.header_row, *table.rows) for cell in row.cells]
    assert [(cell.line, cell.raw.replace("\\|", "|").replace("\0", "\ufffd")) for cell in found] == cells
    for cell in found:
        assert document.lines[cell.line - 1][cell.start : cell.end] == cell.raw


@given(documents)
def test_tables_are_those_of_the_parser_outside_of_code_comments_and_quotes(value: str) -> None:
    tokens = MARKDOWN.parse(value.removeprefix("\ufeff"))
    tables = [token.map for token in tokens if token.type == "table_open" and token.map]
    document = read_document(value)
    found = [[table.line - 1, table.last_line] for table in document.tables]
    assert found == [token.map for token in unquoted(tokens) if token.type == "table_open"]
    assert {first + 1 for first, _ in tables} - {table.line for table in document.tables} <= set(document.unread_tables)
    in_tables = {line for first, last in found for line in range(first + 1, last + 1)}
    assert not in_tables & document.opaque_lines
    assert not in_tables & lines_of(tokens, "fence", "code_block", "html_block")


@given(hostile)
def test_escaped_text_of_the_report_is_read_back(value: str) -> None:
    table = only(f"| a | b |\n|---|---|\n| {text(value)} | {code(value)} |\n")
    as_text, as_code = table.rows[0].cells
    assert seen(as_text.text) == seen(value)
    if seen(value).strip("` "):
        assert seen(as_code.text) == seen(value)
        assert [span.kind for span in as_code.spans] == [SpanKind.CODE]


@given(st.lists(hostile.map(lambda value: value.replace("<", "").replace("[", "")), min_size=2, max_size=2))
def test_the_text_of_cells_is_the_text_of_the_rendered_cells(values: list[str]) -> None:
    row = "| " + " | ".join(re.sub(r"[\r\n\x00\u2028\t]|~~~|```|<!--|-->", "", value) or "x" for value in values) + " |"
    rendered = MARKDOWN.render(f"| a | b |\n|---|---|\n{row}\n")
    expected = [html.unescape(re.sub(r"<[^>]*>", "", cell)) for cell in re.findall(r"<td>(.*?)</td>", rendered)]
    found = only(f"| a | b |\n|---|---|\n{row}\n").rows[0].cells
    assert [cell.text for cell in found] == [cell.strip() for cell in expected]


# --- tables ----------------------------------------------------------------------------------------


def test_lines_count_from_one_and_a_byte_order_mark_is_not_a_column() -> None:
    table = only("\ufeff| a | b |\r\n|:--|--:|\r\n| 1 | 2 |\r\n| 3 | 4 |\r\n\r\nafter\r\n")
    assert (table.line, table.last_line) == (1, 4)
    assert [row.line for row in table.rows] == [3, 4]
    assert texts(table) == [["1", "2"], ["3", "4"]]


@each_row(
    "document",
    [
        "a | b\n---|---\n1 | 2",
        "   | a | b |\n   |---|---|\n   | 1 | 2 |",
        "before\n\n| a | b |\n| :-: | - |\n| 1 | 2 |\n\nprose without a pipe",
        "right above\n| a | b |\n|---|---|\n| 1 | 2 |\n",
        # GFM has no rule that one failed row of dashes ends the search for tables in a paragraph
        "a\n|---|---|\n| a | b |\n|---|---|\n| 1 | 2 |",
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
def test_tables_have_many_spellings(document: str) -> None:
    table = only(document)
    assert table.header == ("a", "b")
    assert texts(table) == [["1", "2"]]


@each_row(
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
        "<?x\n\n| a | b |\n|---|---|",
    ],
)
def test_text_that_only_looks_like_a_table_is_not_read_as_one(document: str) -> None:
    assert read_document(document).tables == ()


@each_row(
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
def test_a_table_after_a_closed_block_is_read(above: str) -> None:
    assert only(f"{above}\n\n| a |\n|---|\n| 1 |").line == above.count("\n") + 3


@pytest.mark.parametrize("line", ["    x", "- ~~~", "1. <!--\n   x", "\tx", ">     x", "<style>x"])
def test_code_and_comments_are_opaque_in_lists_and_quotes_too(line: str) -> None:
    document = read_document(line)
    assert document.opaque_lines == frozenset(range(1, len(document.lines) + 1))


_LIST_MARKS = st.lists(st.sampled_from(["- ", "1. ", "2) ", "* ", "-", " ", "  ", "    ", "\t"]), max_size=4).map(
    "".join
)
_TEXTS = st.sampled_from(["", "", "x", "```", "````", "~~~", "~~~ x", "``` `", "# x", "---", "===", "<!-- x -->"])
_LINES = st.builds("{}{}".format, _LIST_MARKS, _TEXTS)


@given(st.lists(_LINES, max_size=12).map("\n".join))
# CommonMark continues the paragraph of the item on an indented line, and markdown-it-py ends it there
@example("1.   ===\n\t---")
@example("-    x\n    <!-- x -->")
def test_opaque_lines_are_exactly_those_of_code(document: str) -> None:
    """The comments among the pieces are on one line, so only code is opaque."""
    assert read_document(document).opaque_lines == lines_of(MARKDOWN.parse(document), "fence", "code_block")


@each_row(
    ("document", "opaque"),
    [
        ("<!-- x -->\ntext", set()),
        ("<!-- x --> y", set()),
        ("<!--\nx\n-->\ntext", {1, 2, 3}),
        ("<!-- x", {1}),
        ("<pre>\n\nx\n</pre>\ntext", {1, 2, 3, 4}),
        ("<SCRIPT>\nx\n</script>", {1, 2, 3}),
        ("<?x ?>", {1}),
        ("<!DOCTYPE html>", {1}),
        ("<![CDATA[\nx\n]]>", {1, 2, 3}),
        ("<div>\nx\n</div>", set()),
        ("<b>\nx", set()),
        ("- <!--\n  x\n\n  -->\n  text", {1, 2, 3, 4}),
    ],
)
def test_raw_html_and_long_comments_are_opaque(document: str, opaque: set[int]) -> None:
    assert read_document(document).opaque_lines == opaque


@pytest.mark.parametrize("row", ["POST /z", "<b>POST</b> /z | HTTP", "1 \\| 2", "   2.x"])
def test_any_line_below_a_table_is_a_row_unless_it_begins_another_block(row: str) -> None:
    table = only(f"| a | b |\n|---|---|\n{row}\n| 3 | 4 |\n\nprose")
    assert [row.line for row in table.rows] == [3, 4]


@pytest.mark.parametrize(
    ("row", "raw", "cell_texts"),
    [
        (r"| a \| b | `c \| d` |", [r"a \| b", r"`c \| d`"], ["a | b", "c | d"]),
        ("|| b |", ["", "b"], ["", "b"]),
        ("a|b", ["a", "b"], ["a", "b"]),
        ("   |\ta |b\t ", ["a", "b"], ["a", "b"]),
        (r"\|a\|b", [r"\|a\|b", ""], ["|a|b", ""]),
        ("| a", ["a", ""], ["a", ""]),
        ("|", ["", ""], ["", ""]),
    ],
)
def test_cells_have_their_source_text_and_their_position(row: str, raw: list[str], cell_texts: list[str]) -> None:
    cells = only(f"| x | y |\n|---|---|\n{row}\n| 3 | 4 |").rows[0].cells
    assert [cell.raw for cell in cells] == raw
    assert [cell.text for cell in cells] == cell_texts
    assert [row[cell.start : cell.end] for cell in cells] == raw
    assert {cell.line for cell in cells} == {3}


def test_positions_count_the_marks_of_lists() -> None:
    header = only("- 1. | a | b |\n     |---|---|\n").header_row
    assert (header.start, [(cell.start, cell.end) for cell in header.cells]) == (5, [(7, 8), (11, 12)])


def test_surplus_cells_are_counted() -> None:
    rows = only("| a | b |\n|---|---|\n| 1 |\n| 1 | 2 |\t \n| 1 | 2 | 3 |\n1|2||").rows
    assert [row.surplus for row in rows] == [0, 0, 1, 1]


def test_a_missing_column_has_empty_cells() -> None:
    table = only("| Env | Mode |\n|---|---|\n| a | b |")
    assert table.cell(table.rows[0], "mode").text == "b"
    assert table.cell(table.rows[0], "status") == TableCell()


def test_tables_in_quotes_and_html_are_listed_as_unread() -> None:
    document = read_document(
        "> | a |\n> |---|\n\n- > | a |\n  > |---|\n\n<table><tr>\n\n```\n> | a |\n> |---|\n<table>\n```\n"
    )
    assert document.tables == ()
    assert document.unread_tables == (1, 4, 7)


# --- inline Markdown --------------------------------------------------------------------------------------------------


def test_the_text_of_inline_markdown_has_no_markup() -> None:
    raw = r'**bold** _it_ `co|de` [la**b**el](a/b.md#c) <https://x.org> a\_b pool_size 2 * 3 &lt;t&gt;<a id="x"></a>'
    assert plain_text(spans(raw)) == "bold it co|de label https://x.org a_b pool_size 2 * 3 <t>"


def test_inline_markdown_has_code_links_and_breaks() -> None:
    assert spans("a `` b ` c `` [d](e 'f')~~x~~ [g](<h i>)<br/>[j](k_(l).md \"m\")") == (
        Span(SpanKind.TEXT, "a "),
        Span(SpanKind.CODE, "b ` c"),
        Span(SpanKind.TEXT, " "),
        Span(SpanKind.LINK, "d", "e"),
        Span(SpanKind.TEXT, "x "),
        Span(SpanKind.LINK, "g", "h i"),
        Span(SpanKind.BREAK, ""),
        Span(SpanKind.LINK, "j", "k_(l).md"),
    )


def test_links_keep_their_targets_as_written() -> None:
    assert [span.target for span in spans("[a](é%20b) ![c](d e.png)![f](g.png) [h](javascript:i) <mailto:j@k>")] == [
        "é%20b",
        "",
        "g.png",
        "",
        "javascript:i",
        "",
        "mailto:j@k",
    ]


def test_reference_links_have_the_target_of_their_definition() -> None:
    table = only("| a |\n|---|\n| see [x][r] and [r] |\n\n[r]: docs/x.md\n")
    assert [span.target for span in table.rows[0].cells[0].spans] == ["", "docs/x.md", "", "docs/x.md"]


def test_an_image_in_a_link_is_a_part_of_its_text() -> None:
    assert spans("[![CI](badge.svg) x](run)") == (Span(SpanKind.LINK, "CI x", "run"),)


# --- adoption tables ----------------------------------------------------------------------------------------


@each_row(
    ("header", "kind"),
    [
        (
            "| Environment | Class (CI or host) | Chain | Pooler product | Pool mode | Matches prod |",
            TableKind.TOPOLOGY,
        ),
        ("| **environment** | CLASS | pool mode | `Sandbox note` |", TableKind.TOPOLOGY),
        (
            r"| Path | Kind (HTTP \| job) | Status (OK \| Issue) | Evidence / pointer | Notes (if N/A) |",
            TableKind.PATHS,
        ),
        ("| Question | Answer | Matches prod? |", TableKind.QUESTIONS),
        ("| Checklist item (summary) | Status | Evidence |", TableKind.CHECKLIST),
        ("| Item | Status | Evidence / notes |", TableKind.PREFLIGHT),
        ("| Check | Status | Evidence |", TableKind.PARITY),
        ("| P | ID | Symptom | Likely area | Owner | Link |", TableKind.ISSUES),
        ("| Environment | Engine | Servers | Ready after |", None),
        ("| Check | P | Claim | direct |", None),
        ("| Name | Status |", None),
    ],
)
def test_a_table_is_recognised_by_its_columns(header: str, kind: TableKind | None) -> None:
    columns = header.replace(r"\|", "").count("|") - 1
    table = only(f"{header}\n|{'---|' * columns}\n")
    assert table.kind is kind


def test_a_marker_names_the_next_table_of_its_section() -> None:
    document = read_document(
        "# A\n\n**STG-HOST-TOPOLOGY-TEMPLATE**\n\nsome prose\n\n| Env | Mode |\n|---|---|\n| a | b |\n\n"
        "STG-AUDITED-PATH-RUBRIC\n\n# B\n\n| x | y |\n|---|---|\n\nsee STG-AUDITED-PATH-RUBRIC above\n"
    )
    assert [table.kind for table in document.tables] == [TableKind.TOPOLOGY, None]
    assert document.markers == ((3, TableKind.TOPOLOGY), (11, TableKind.PATHS))
    assert document.table_after(11) is None


def test_columns_take_precedence_over_a_marker() -> None:
    header = "| Question | Answer | Matches prod? |\n|---|---|---|\n"
    assert only(f"STG-HOST-TOPOLOGY-TEMPLATE\n\n{header}").kind is TableKind.QUESTIONS


# --- headings and prose -------------------------------------------------------------------------------------------


def test_prose_below_a_table_ends_with_its_section() -> None:
    document = read_document(
        "# One\n\n## Two\n\n| a |\n|---|\n| 1 |\n\nright below\nit\n\n- a list\n\n### staging\n\ndiffers\n\n## Three\n\nnot this\n"
    )
    assert [(prose.line, prose.text) for prose in document.prose_below(document.tables[0])] == [
        (9, "right below it"),
        (12, "a list"),
        (16, "staging differs"),
    ]


def test_headings_and_anchors() -> None:
    document = read_document(
        '# A, b & `c`!\n\nSet\n===\n\nSub\n---\n\n## Set ##\n\n```\n# no\n```\n\n<a id="Row.1"></a>\n'
    )
    assert [(heading.line, heading.level, heading.title) for heading in document.headings] == [
        (1, 1, "A, b & c!"),
        (3, 1, "Set"),
        (6, 2, "Sub"),
        (9, 2, "Set"),
    ]
    assert document.anchors() == {"a-b--c", "set", "sub", "set-1", "row.1"}


def test_prose_joins_adjacent_lines_of_paragraphs_lists_quotes_and_html() -> None:
    document = read_document(
        "a `b`\n- c\n  - d\n> e\n> # f\n\ng\n<!-- h -->\ni\n\n<p>j\nk</p>\n\n> | l | m |\n> |---|---|\n> | n | o |\n\n"
        "p\n\n    code\n# q\nr\n"
    )
    assert [(prose.line, prose.text) for prose in document.prose] == [
        (1, "a b c d e f"),
        (7, "g"),
        (9, "i"),
        (11, "j k"),
        (14, "l m"),
        (16, "n o"),
        (18, "p"),
        (22, "r"),
    ]


# --- limits ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("marks", ["> " * 100, "- " * 50, "1. " * 60, "> - " * 40])
def test_a_document_nested_too_deep_is_an_error(marks: str) -> None:
    """markdown-it-py skips deeper blocks without an error."""
    with pytest.raises(ConfigError, match="nested more than 100 levels") as caught:
        read_document(f"a\n\n{marks}| a |\n", "our.md")
    assert caught.value.where == "our.md:3"


@pytest.mark.parametrize("marks", ["> " * 99, "- " * 49, "> - " * 33])
def test_a_deeply_nested_document_is_read(marks: str) -> None:
    document = read_document(f"{marks}x\n\n| a |\n|---|\n")
    assert (document.prose[0].text, document.tables[0].line) == ("x", 3)


def test_a_huge_document_is_an_error() -> None:
    with pytest.raises(ConfigError, match="expected at most 2,000,000"):
        read_document("x" * 2_000_001, "our.md")


@each_row(
    "piece",
    [
        *(
            "|",
            "| a ",
            "|a|\n",
            "|-|\n",
            "| a |\n|-|\n",
            "\\|",
            "`",
            "`` ",
            "[",
            "![",
            "[a](",
            "[a][",
            "[a]: b\n",
            "](",
            "*",
        ),
        *(
            "**a",
            "_a*",
            "~~",
            "<",
            "<a ",
            "<!--",
            "<!-- -->\n",
            "<?",
            "<![CDATA[",
            "</",
            "&",
            "&#",
            "<http:",
            "- ",
            "> ",
        ),
        *("- a\n", "> a\n", "> > > a\n", "- - - a\n", "#", "# a\n", "```\n", "~~~\n", "\t", "    a\n", " ", "\n"),
        *("---\n", "a\n===\n", "<div>\n", "<pre>\n", "a\n", "a  \n", "\xa0", "\x00", "<table>", '<a id="'),
    ],
)
def test_hostile_documents_are_read_in_linear_time(piece: str) -> None:
    def read(document: str) -> None:
        try:
            read_document(document)
        except ConfigError:
            assert piece in {"- ", "> "}  # nested too deep, which the parser also finds in linear time

    assert is_linear(read, piece)
