from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from harness.errors import ConfigError, StoreError
from harness.report.splice import NAMES, into, splice

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


def test_what_lies_between_markers_is_replaced_and_nothing_else() -> None:
    before = "# Ours\n\nours\n" + block("stg-02", "old\n") + "theirs\n" + block("issues") + "end"
    after = splice(before.encode(), TABLES).decode()
    assert after == (
        "# Ours\n\nours\n"
        + block("stg-02", f"\n{PATHS}\n")
        + "theirs\n"
        + block("issues", "\n" + TABLES["issues"] + "\n")
        + "end"
    )


def test_line_ends_byte_order_mark_and_other_encodings_stay() -> None:
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
def test_splicing_again_changes_nothing_and_every_other_byte_stays(
    above: bytes, old: bytes, below: bytes, end: bytes, name: str, content: str
) -> None:
    first = above + end + b"<!-- pooler-harness: " + name.encode() + b" -->" + end
    last = b"<!-- pooler-harness: end -->" + end + below
    try:
        after = splice(first + old + end + last, {name: content})
    except ConfigError:
        assume(False)  # the marker lies in code, or what is put there would hide its end
    assert after.startswith(first)
    assert after.endswith(last)
    assert splice(after, {name: content}) == after


# --- the template's own markers -------------------------------------------------------------------------------


def test_the_table_below_a_bare_marker_is_replaced_alone() -> None:
    old = "| Environment | Class | Chain | Pool mode |\n|--|--|--|--|\n| _example_ | _host_ | x | y |\n| a | b | c | d |\n"
    before = f"# Ours\n\nSTG-HOST-TOPOLOGY-TEMPLATE\n\nHow we fill it.\n\n{old}right below\n\n| x | y |\n|---|---|\n"
    after = splice(before.encode(), TABLES).decode()
    assert after == before.replace(old, ROWS)
    assert splice(after.encode(), TABLES).decode() == after


def test_a_marker_below_code_in_a_list_is_a_marker() -> None:
    before = f"- ```sh\n  x\n  ```\n\n    ```\n\n{block('stg-01')}"
    assert b"| direct |" in splice(before.encode(), TABLES)


def test_a_table_that_begins_a_list_is_not_replaced() -> None:
    before = "STG-HOST-TOPOLOGY-TEMPLATE\n\n- " + ROWS.replace("\n|", "\n  |")
    with pytest.raises(ConfigError, match="in a list"):
        splice(before.encode(), TABLES)


def test_rows_without_a_pipe_go_with_the_rows_around_them() -> None:
    old = "| Environment | Class | Chain | Pool mode |\n|--|--|--|--|\nold\n| a | b | c | d |\n"
    after = splice(f"STG-HOST-TOPOLOGY-TEMPLATE\n\n{old}ours\n".encode(), TABLES).decode()
    assert after == f"STG-HOST-TOPOLOGY-TEMPLATE\n\n{ROWS}ours\n"


def test_a_bare_table_at_the_end_of_a_file_gets_no_line_end() -> None:
    before = b"STG-HOST-TOPOLOGY-TEMPLATE\r\n\r\n| Environment | Class | Chain | Pool mode |\r\n|--|--|--|--|\r\n| a | b | c | d |"
    assert splice(before, TABLES) == b"STG-HOST-TOPOLOGY-TEMPLATE\r\n\r\n" + ROWS.strip().replace("\n", "\r\n").encode()


def test_a_bare_marker_with_a_block_is_a_heading_of_the_block() -> None:
    before = f"STG-HOST-TOPOLOGY-TEMPLATE\n\n{block('stg-01')}"
    after = splice(before.encode(), TABLES).decode()
    assert after.count("| direct |") == 1
    assert splice(after.encode(), TABLES).decode() == after


# --- mistakes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "line", "said"),
    [
        (f"a\n{block('stg-1')}", 2, "did you mean stg-0"),
        ("a\n\n<!-- pooler-harness: stg-01 -->\nb\n", 3, "does not end"),
        (f"a\n{block('stg-01', block('stg-02'))}", 3, "begins inside stg-01"),
        (f"{block('stg-01')}a\n{block('stg-01')}", 4, "marked twice"),
        ("a\n<!-- pooler-harness: end -->\n", 2, "ends nothing"),
        (f"a\n{block('parity')}", 2, "no table parity"),
        ("<!-- pooler-harness stg-01 -->\n", 1, "with a colon"),
        ("STG-HOST-TOPOLOGY-TEMPLATE\n\n# next\n", 1, "no table below it"),
        (
            "STG-AUDITED-PATH-RUBRIC\n\n| legend | means |\n|---|---|\n| a | b |\n",
            1,
            "another table below it, on line 3",
        ),
        (f"STG-HOST-TOPOLOGY-TEMPLATE\n\n{ROWS}\nSTG-HOST-TOPOLOGY-TEMPLATE\n\n{ROWS}", 7, "marked twice"),
        (f"STG-HOST-TOPOLOGY-TEMPLATE\n\n{block('issues', ROWS)}", 1, "already in a marked place"),
    ],
)
def test_a_mistake_is_told_with_its_line(document: str, line: int, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        splice(document.encode(), TABLES, name="our.md")
    assert said in str(caught.value)
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
def test_without_a_marker_the_error_says_which_to_put(document: str) -> None:
    with pytest.raises(ConfigError, match="put <!-- pooler-harness: stg-01 -->"):
        splice(document.encode(), TABLES)


def test_what_would_hide_the_markers_is_not_put_in() -> None:
    with pytest.raises(ConfigError, match="hide or add markers"):
        splice(block("issues").encode(), {"issues": "```\nno end"})


# --- files ----------------------------------------------------------------------------------------------------


def test_a_file_is_written_once_keeps_its_mode_and_its_links(tmp_path: Path) -> None:
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
    assert sorted(each.name for each in tmp_path.iterdir()) == ["adoption.md", "link.md"]


def test_what_cannot_be_read_or_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="no such document"):
        into(tmp_path / "none.md", TABLES, check=True)
    with pytest.raises(ConfigError, match="cannot be read"):
        into(tmp_path, TABLES, check=True)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="no regular file"):
        into(tmp_path / "pipe", TABLES, check=True)
    (tmp_path / "pipe").unlink()
    file = tmp_path / "a.md"
    file.write_text(block("stg-01"))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(StoreError, match="No space left"):
        into(file, TABLES, check=False)
    assert [each.name for each in tmp_path.iterdir()] == ["a.md"]
    assert file.read_text() == block("stg-01")
