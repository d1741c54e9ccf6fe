"""The reference in `docs/` is what the code says today, complete, and shown as it was written."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import pytest
from markdown_it import MarkdownIt
from msgspec import Meta, Struct

from harness import places
from harness.cli.main import root
from harness.model import PoolMode
from harness.suites.catalogue import catalogue
from tests.reference import NAMES, documents, embedded, files, targets
from tests.reference.comments import comments_of
from tests.reference.files import FILES
from tests.reference.markdown import prose, table
from tests.reference.values import default_of, described
from tests.unit.command_lines import commands

if TYPE_CHECKING:
    from markdown_it.token import Token


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_reference_is_current(name: str) -> None:
    path = places.PACKAGE.parent / name
    committed = path.read_text(encoding="utf-8") if path.exists() else ""
    assert committed == documents()[name], f"{name} is outdated: run `python -m tests.reference`"


def test_no_document_of_the_reference_is_left_over() -> None:
    folder = places.PACKAGE.parent / "docs"
    found = {str(path.relative_to(places.PACKAGE.parent)) for path in folder.glob("reference/**/*.md")}
    assert found | {"docs/reference.md", targets.DOCUMENT, *embedded.DOCUMENTS} == set(NAMES)


def test_every_command_and_every_visible_option_is_listed() -> None:
    text = documents()["docs/reference/commands.md"]
    names = [name for name, _ in commands(root)]
    assert [name for name in names if f"\n### harness {name}\n" not in text] == []
    options = {
        option
        for _, command in commands(root)
        for parameter in command.params
        if not getattr(parameter, "hidden", False)
        for option in parameter.opts
        if option.startswith("--")
    }
    listed = {option for cell in re.findall(r"\| `(-[^`]+)` \|", text) for option in re.findall(r"--[a-z-]+", cell)}
    assert options - listed == set()


def test_every_check_is_listed_with_each_of_its_controls() -> None:
    rows = {line.split("`")[1]: line for line in documents()["docs/reference/checks.md"].splitlines() if "| `" in line}
    found = catalogue()
    for check in found.checks:
        assert f"| {check.severity} |" in rows[check.id]
        assert [
            control.name for control in found.controls_of(check.id) if f"`{control.name}`" not in rows[check.id]
        ] == []


def test_every_key_has_a_meaning() -> None:
    lines = documents()["docs/reference/files.md"].splitlines()
    assert [line for line in lines if line.startswith("| `") and line.endswith("|  |")] == []


def test_every_key_of_every_file_is_listed() -> None:
    text = documents()["docs/reference/files.md"]
    for file in FILES:
        fields = msgspec.structs.fields(file.kind)
        assert [
            field.name for field in fields if field.name not in file.hidden and f"| `{field.name}` |" not in text
        ] == []


# --- what a key takes ------------------------------------------------------------------------------------------


class Inner(Struct):
    """An entry."""

    #: the first line,
    #: and the second
    name: str = "a|b"
    # an ordinary comment is for readers of the code
    count: Annotated[int, Meta(ge=1, le=9)] = 1


class Outer(Struct):
    """A file."""

    #: of each entry
    inner: tuple[Inner, ...]
    named: dict[str, Inner] = {}
    mode: PoolMode | None = None
    word: Annotated[str, Meta(pattern="^a+$")] | Literal[""] = ""
    words: Annotated[tuple[str, ...], Meta(min_length=1)] = ("a",)


HEADINGS: dict[type[Struct], str] = {Inner: "[[inner]]"}


def test_only_marked_comments_directly_above_a_field_are_its_meaning() -> None:
    assert comments_of(Inner) == {"name": "the first line, and the second"}
    assert comments_of(Outer) == {"inner": "of each entry"}


@pytest.mark.parametrize(
    ("name", "value", "default"),
    [
        ("inner", "list of tables `[[inner]]`", "required"),
        ("named", "tables `[[inner]]`", "`{}`"),
        ("mode", '`"session"`, `"transaction"`, `"statement"`', "–"),
        ("word", 'text matching `^a+$` or `""`', '`""`'),
        ("words", "list of text, not empty", '`["a"]`'),
    ],
)
def test_values_and_defaults_are_in_words(name: str, value: str, default: str) -> None:
    [field] = [field for field in files.fields_of(Outer) if field.name == name]
    assert described(field.type, name, HEADINGS)[0] == value
    assert default_of(field) == default


# --- Markdown --------------------------------------------------------------------------------------------------


def last_cell(text: str) -> list[Token]:
    """Return what a reader gets from a sentence in the last cell of a table."""
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    inline = [token for token in parser.parse(table(("A", "B"), [("x", prose(text))])) if token.type == "inline"]
    return inline[-1].children or []


@pytest.mark.parametrize(
    "text",
    [
        "a * b, <c>, [d](e), f|g and _h_ stay text",
        "a path such as C:\\temp, or 5 < 6",
        "snake_case and ~~no strike~~",
    ],
)
def test_text_is_shown_as_it_was_written(text: str) -> None:
    assert "".join(child.content for child in last_cell(text)) == text


def test_code_stays_code_in_a_cell() -> None:
    cell = last_cell("write `a|b` or :class:`~C`")
    assert [child.content for child in cell if child.type == "code_inline"] == ["a|b", "C"]
