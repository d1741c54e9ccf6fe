"""Every key of the TOML files that people write: a table for each table of a file."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from harness.audit.target_file import TargetFile
from harness.checks.documented import BehaviourFile
from harness.cli.project_file import ProjectFile
from harness.engine.recipes import Recipe
from harness.job_engines.target_file import JobEngineFile
from harness.model import Topology
from harness.report.escape import code
from tests.reference.comments import comments_of
from tests.reference.markdown import page, paragraphs, prose, table
from tests.reference.values import choices_in, default_of, described, tables_in

if TYPE_CHECKING:
    from collections.abc import Iterator


class File(Struct, frozen=True):
    """A kind of TOML file."""

    title: str
    kind: type[Struct]
    #: fields that are not keys of the file
    hidden: tuple[str, ...] = ()


FILES = (
    File("Topologies", Topology, hidden=("name",)),
    File("Project file", ProjectFile),
    File("Audit targets", TargetFile),
    File("Job engines", JobEngineFile),
    File("Image recipes", Recipe),
    File("Documented behaviour", BehaviourFile),
)

_INTRODUCTION = """
Unknown keys, wrong types and invalid values are errors that name the file, the line, the key, and what is allowed. A
heading in double brackets is a list of tables: write it once for each entry.
"""


def document() -> str:
    return page("Files", _INTRODUCTION.strip(), *(part for file in FILES for part in _file(file)))


def _file(file: File) -> Iterator[str]:
    headings: dict[type[Struct], str] = {file.kind: ""}
    tables = list(_tables(file.kind, "", headings))
    yield f"## {file.title}"
    yield paragraphs(file.kind.__doc__ or "")
    yield _keys(file.kind, file.hidden, "", headings)
    for path, kind in tables:
        yield f"### `{headings[kind]}`"
        yield paragraphs(kind.__doc__ or "")
        yield _keys(kind, (), path, headings)


def tables_of_keys(kind: type[Struct], level: int) -> Iterator[str]:
    """Yield the keys of a file: a heading and a table for each of its tables, without their introductions.

    :param level: of the headings.
    """
    headings: dict[type[Struct], str] = {kind: ""}
    tables = list(_tables(kind, "", headings))
    yield _keys(kind, (), "", headings)
    for path, inner in tables:
        yield f"{'#' * level} `{headings[inner]}`"
        yield _keys(inner, (), path, headings)


def _tables(kind: type[Struct], path: str, headings: dict[type[Struct], str]) -> Iterator[tuple[str, type[Struct]]]:
    """Yield each table of a file once, where it appears first, with the path of its keys.

    :param headings: gets the heading of each table, as the file spells it.
    """
    for field in fields_of(kind):
        for inner, shape in tables_in(field.type):
            if inner not in headings:
                below = f"{path}{field.encode_name}{shape.suffix}"
                headings[inner] = f"[[{below}]]" if shape.repeated else f"[{below}]"
                yield f"{below}.", inner
                yield from _tables(inner, f"{below}.", headings)


def _keys(kind: type[Struct], hidden: tuple[str, ...], path: str, headings: dict[type[Struct], str]) -> str:
    """Return the table of the keys of one table of a file."""
    comments = comments_of(kind)
    rows = []
    for field in fields_of(kind):
        if field.encode_name in hidden:
            continue
        value, meanings = described(field.type, path + field.encode_name, headings)
        meaning = "; ".join(filter(None, (comments.get(field.name) or _summary(field.type), meanings)))
        rows.append((code(field.encode_name), value, default_of(field), prose(meaning)))
    return table(("Key", "Value", "Default", "Meaning"), rows)


def _summary(info: Any) -> str:
    """Return the first sentence about the table or the choice that a key holds; "" for other keys."""
    kinds = [*(kind for kind, _ in tables_in(info)), *choices_in(info)]
    documented = [inspect.getdoc(kind) or "" for kind in kinds]
    sentence = re.split(r"\.(\s|$)", documented[0])[0] if documented else ""
    return sentence[:1].lower() + sentence[1:]


def fields_of(kind: type[Struct]) -> tuple[Any, ...]:
    """Return the keys of a table with their types and defaults."""
    info = msgspec.inspect.type_info(kind)
    return info.fields if isinstance(info, msgspec.inspect.StructType) else ()
