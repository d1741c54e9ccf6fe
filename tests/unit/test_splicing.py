"""Splicing the report's tables into a document: every byte outside of the marked places stays the same."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from harness.errors import ConfigError, StoreError
from harness.report.splice import NAMES, into, splice
from tests.tables import each_row

if TYPE_CHECKING:
    from pathlib import Path

TOPOLOGY = (
    "## STG host topology template (STG-01)\n\nSTG-HOST-TOPOLOGY-TEMPLATE\n\n"
    "| Environment | Class | Pool mode | Matches prod |\n|---|---|---|---|\n| direct | CI | none | partial |\n\n"
    "**direct: matches prod partial.** It differs.\n"
)
PATHS = (
    "STG-AUDITED-PATH-RUBRIC\n\n| Path | Kind | Status | Evidence |\n|---|---|---|---|\n| a | HTTP | Not run | - |\n"
)
TABLES = {"stg-01": TOPOLOGY, "stg-02": PATHS, "issues": "| P | ID | Symptom |\n|---|---|---|\n"}
ROWS = "| Environment | Class | Pool mode | Matches prod |\n|---|---|---|---|\n| direct | CI | none | partial |\n"


def block(name: str, content: str = "") -> str:
    return f"<!-- pooler-harness: {name} -->\n{content}<!-- pooler-harness: end -->\n"


# --- between markers ----------------------------------------------------------------------------------------


def test_only_the_text_between_markers_is_replaced() -> None:
    before = "# Ours\n\nours\n" + block("stg-02", "old\n") + "theirs\n" + block("issues") + "end"
    after = splice(before.encode(), TABLES).decode()
    assert after == (
        "# Ours\n\nours\n"
        + block("stg-02", f"\n{PATHS}\n")
        + "theirs\n"
        + block("issues", "\n" + TABLES["issues"] + "\n")
        + "end"
    )


def test_line_ends_byte_order_mark_and_invalid_utf_8_stay_the_same() -> None:
    before = b"\xef\xbb\xbf<!-- pooler-harness: issues -->\r\nold\r\n<!-- pooler-harness: end -->\r\nna\xefve \xff\xfe\x00\n\rno end"
    after = splice(before, TABLES)
    assert after == (
        b"\xef\xbb\xbf<!-- pooler-harness: issues -->\r\n\r\n| P | ID | Symptom |\r\n|---|---|---|\r\n\r\n"
        b"<!-- pooler-harness: end -->\r\nna\xefve \xff\xfe\x00\n\rno end"
    )
    assert splice(after, TABLES) == after


_outside = st.lists(
    st.sampled_from(
        [
            b"text",
            b"\n",
            b"\r\n",
            b"\r",
            b"\xff\xc3",
            b"| a | b |",
            b"|---|---|",
            b"```",
            b"# h",
            b" ",
            b"<!--",
            b"-->",
            b"\xe2\x80\xa8",
        ]
    ),
    max_size=12,
).map(b"".join)


@given(
    _outside, _outside, _outside, st.sampled_from([b"\n", b"\r\n", b"\r"]), st.sampled_from(NAMES), st.text(max_size=60)
)
def test_every_byte_outside_of_the_markers_stays_the_same_and_splicing_is_idempotent(
    above: bytes, old: bytes, below: bytes, end: bytes, name: str, content: str
) -> None:
    first = above + end + b"<!-- pooler-harness: " + name.encode() + b" -->" + end
    last = b"<!-- pooler-harness: end -->" + end + below
    try:
        after = splice(first + old + end + last, {name: content})
    except ConfigError:
        assume(False)  # the marker is in code, or the content would hide its end marker
    assert after.startswith(first)
    assert after.endswith(last)
    assert splice(after, {name: content}) == after


@given(_outside, _outside, st.sampled_from([b"\n", b"\r\n", b"\r"]), st.integers(0, 3))
def test_every_byte_outside_of_the_table_below_a_bare_marker_stays_the_same(
    above: bytes, below: bytes, end: bytes, rows: int
) -> None:
    first = above + end + b"STG-HOST-TOPOLOGY-TEMPLATE" + end * 2
    old = end.join([b"| Env | Class | Pool mode | Chain |", b"|-|-|-|-|", *[b"| a | b | c | \xff |"] * rows])
    last = end * 2 + below
    try:
        after = splice(first + old + last, TABLES)
    except ConfigError:
        assume(False)  # the marker is in code or a comment, or belongs to the paragraph above
    assert after == first + ROWS.strip().encode().replace(b"\n", end) + last


# --- the template's bare markers -------------------------------------------------------------------------------


def test_the_table_below_a_bare_marker_is_replaced_alone() -> None:
    old = "| Environment | Class | Chain | Pool mode |\n|--|--|--|--|\n| _example_ | _host_ | x | y |\n| a | b | c | d |\n"
    before = f"# Ours\n\nSTG-HOST-TOPOLOGY-TEMPLATE\n\nHow we fill it.\n\n{old}right below\n\n| x | y |\n|---|---|\n"
    after = splice(before.encode(), TABLES).decode()
    assert after == before.replace(old, ROWS)
    assert splice(after.encode(), TABLES).decode() == after


def test_a_marker_below_code_in_a_list_is_a_marker() -> None:
    before = f"- ```sh\n  x\n  ```\n\n    ```\n\n{block('stg-01')}"
    assert b"| direct |" in splice(before.encode(), TABLES)


def test_a_table_on_the_line_of_a_list_item_is_not_replaced() -> None:
    before = "STG-HOST-TOPOLOGY-TEMPLATE\n\n- " + ROWS.replace("\n|", "\n  |")
    with pytest.raises(ConfigError, match="on the line of a list item"):
        splice(before.encode(), TABLES)


def test_rows_without_a_pipe_are_replaced_between_rows_with_one() -> None:
    old = "| Environment | Class | Chain | Pool mode |\n|--|--|--|--|\nold\n| a | b | c | d |\n"
    after = splice(f"STG-HOST-TOPOLOGY-TEMPLATE\n\n{old}ours\n".encode(), TABLES).decode()
    assert after == f"STG-HOST-TOPOLOGY-TEMPLATE\n\n{ROWS}ours\n"


def test_a_bare_table_at_the_end_of_a_file_gets_no_line_end() -> None:
    before = b"STG-HOST-TOPOLOGY-TEMPLATE\r\n\r\n| Environment | Class | Chain | Pool mode |\r\n|--|--|--|--|\r\n| a | b | c | d |"
    assert splice(before, TABLES) == b"STG-HOST-TOPOLOGY-TEMPLATE\r\n\r\n" + ROWS.strip().replace("\n", "\r\n").encode()


def test_a_bare_marker_above_a_marked_place_for_the_same_table_is_ignored() -> None:
    before = f"STG-HOST-TOPOLOGY-TEMPLATE\n\n{block('stg-01')}"
    after = splice(before.encode(), TABLES).decode()
    assert after.count("| direct |") == 1
    assert splice(after.encode(), TABLES).decode() == after


# --- errors -------------------------------------------------------------------------------------------------


@each_row(
    ("document", "line", "message"),
    [
        (f"a\n{block('stg-1')}", 2, "did you mean stg-0"),
        ("a\n\n<!-- pooler-harness: stg-01 -->\nb\n", 3, "no end marker"),
        (f"a\n{block('stg-01', block('stg-02'))}", 3, "is inside stg-01"),
        (f"{block('stg-01')}a\n{block('stg-01')}", 4, "marked twice"),
        ("a\n<!-- pooler-harness: end -->\n", 2, "end marker without a marker"),
        (f"a\n{block('parity')}", 2, "no table parity"),
        ("<!-- pooler-harness stg-01 -->\n", 1, "with a colon"),
        ("STG-HOST-TOPOLOGY-TEMPLATE\n\n# next\n", 1, "no table below it"),
        (
            "STG-AUDITED-PATH-RUBRIC\n\n| legend | means |\n|---|---|\n| a | b |\n",
            1,
            "another table below it, on line 3",
        ),
        (f"STG-HOST-TOPOLOGY-TEMPLATE\n\n{ROWS}\nSTG-HOST-TOPOLOGY-TEMPLATE\n\n{ROWS}", 7, "marked twice"),
        (f"STG-HOST-TOPOLOGY-TEMPLATE\n\n{block('issues', ROWS)}", 1, "already between two other markers"),
    ],
)
def test_an_invalid_marker_is_an_error_with_its_line(document: str, line: int, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        splice(document.encode(), TABLES, name="our.md")
    assert message in str(caught.value)
    assert caught.value.where == f"our.md:{line}"


@pytest.mark.parametrize(
    "document",
    [
        "nothing here\n",
        f"```md\n{block('stg-01')}```\n",
        f"- ```sh\n  x\n  ```\n\n```md\n{block('stg-01')}```\n",
        f"<pre>\n</style>\n```md\n{block('stg-01')}```\n",
        f"<!--\n{block('stg-01')}-->\n",
        "say `<!-- pooler-harness: stg-01 -->` in a line\n",
        "",
    ],
)
def test_the_error_about_a_missing_marker_shows_a_marker(document: str) -> None:
    with pytest.raises(ConfigError, match="put <!-- pooler-harness: stg-01 -->"):
        splice(document.encode(), TABLES)


def test_content_that_would_hide_the_markers_is_an_error() -> None:
    with pytest.raises(ConfigError, match="hide or add markers"):
        splice(block("issues").encode(), {"issues": "```\nno end"})


# --- files ----------------------------------------------------------------------------------------------------


def test_a_file_is_written_only_when_it_changes_and_keeps_its_mode_and_links(tmp_path: Path) -> None:
    file, link = tmp_path / "adoption.md", tmp_path / "link.md"
    file.write_text(block("stg-01"))
    file.chmod(0o640)
    link.symlink_to(file)
    assert into(link, TABLES, check=True) is False
    assert file.read_text() == block("stg-01")
    assert into(link, TABLES, check=False) is False
    written = file.stat()
    assert link.is_symlink()
    assert stat.S_IMODE(written.st_mode) == 0o640
    assert "| direct |" in file.read_text()
    assert into(link, TABLES, check=False) is True
    assert into(link, TABLES, check=True) is True
    assert file.stat().st_mtime_ns == written.st_mtime_ns
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adoption.md", "link.md"]


def test_unreadable_and_unwritable_documents_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="document not found"):
        into(tmp_path / "none.md", TABLES, check=True)
    with pytest.raises(ConfigError, match="cannot read the document"):
        into(tmp_path, TABLES, check=True)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="not a regular file"):
        into(tmp_path / "pipe", TABLES, check=True)
    (tmp_path / "pipe").unlink()
    file = tmp_path / "a.md"
    file.write_text(block("stg-01"))

    def disk_full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", disk_full)
    with pytest.raises(StoreError, match="No space left"):
        into(file, TABLES, check=False)
    assert [path.name for path in tmp_path.iterdir()] == ["a.md"]
    assert file.read_text() == block("stg-01")
