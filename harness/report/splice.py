"""Splices the report's tables into a document that a team owns: between markers, and nowhere else.

Two HTML comments mark a place, each on a line of its own:

    <!-- pooler-harness: stg-01 -->
    <!-- pooler-harness: end -->

Everything between them is replaced. If a document has the bare marker of the adoption template instead, only the lines
of the table below the marker are replaced. All other bytes stay the same: line ends, a byte order mark, and bytes that
are not valid UTF-8.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.config import nearest
from harness.errors import ConfigError, StoreError
from harness.markdown.adoption import TableKind, kind_by_columns
from harness.markdown.document import read_document

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from harness.markdown.document import Document, Table

#: the tables that can be spliced into a document, by the name in the marker
NAMES = (
    *("stg-01", "stg-02", "checklist", "issues", "feature-map", "resilience", "trials", "job-engines", "ingest"),
    *("readiness", "preflight", "parity", "migrations"),
)

#: the names of the tables that the template's bare markers refer to
_BARE = {TableKind.TOPOLOGY: "stg-01", TableKind.PATHS: "stg-02"}
_MARKER = re.compile(r" {0,3}<!--\s*pooler-harness\b(?P<content>.*?)-->[ \t]*")
_END = "end"
_HINT = (
    "put <!-- pooler-harness: stg-01 --> and <!-- pooler-harness: end --> on lines of their own, where the table "
    f"belongs; valid names: {', '.join(NAMES)}"
)


class Target(Struct, frozen=True):
    """Lines to replace, from `first` up to and without `end`. Both count from 0."""

    name: str
    first: int
    end: int
    #: whether only the lines of a table are replaced, without the text around it
    table_only: bool


def splice(document: bytes, tables: Mapping[str, str], *, name: str = "the document") -> bytes:
    """Return the document with its marked places filled. Splicing the result again does not change it.

    :param tables: the Markdown to splice in, by the name in the marker, such as `stg-01`.
    :param name: the document's name in errors.
    :raises ConfigError: when a marker is unknown, unpaired, nested or repeated, when the document has no marker, and
        when it exceeds the limits of the Markdown parser.
    """
    before = document.decode("utf-8", "surrogateescape")
    after = _filled(before, tables, name)
    with contextlib.suppress(ConfigError):
        if _filled(after, tables, name) == after:
            return after.encode("utf-8", "surrogateescape")
    raise ConfigError(
        "the report's tables would hide or add markers",
        where=name,
        hint="this is a bug of the report, not of the document",
    )


def _filled(text: str, tables: Mapping[str, str], name: str) -> str:
    lines = re.findall(r"[^\r\n]*(?:\r\n|\n|\r)|[^\r\n]+\Z", text)
    for target in sorted(
        _targets(read_document(text, name), tables, name), key=lambda target: target.first, reverse=True
    ):
        lines[target.first : target.end] = _filling(target, tables[target.name], lines)
    return "".join(lines)


def into(path: Path, tables: Mapping[str, str], *, check: bool) -> bool:
    """Fill the marked places of a file, and return whether it was already up to date.

    Symbolic links are followed, and the file keeps its owner and mode. It is written only when its content changes, and
    atomically.

    :param tables: see :func:`splice`.
    :param check: write nothing.
    :raises ConfigError: as :func:`splice` does, and when the file is missing, unreadable or not a regular file.
    :raises StoreError: when the file cannot be written.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe may never end
            raise ConfigError("cannot read the document: not a regular file", where=str(path))
        before = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError("document not found", where=str(path), hint=f"create it, and {_HINT}") from None
    except OSError as error:
        raise ConfigError(f"cannot read the document: {error.strerror or error}", where=str(path)) from None
    after = splice(before, tables, name=str(path))
    if after != before and not check:
        _replace(path.resolve(), after)
    return after == before


def _targets(document: Document, tables: Mapping[str, str], name: str) -> list[Target]:
    """Return the places of a document to fill.

    :raises ConfigError: see :func:`splice`.
    """
    found = _marked_places(document, name)
    places = [(target.first, target.end) for target in found]
    for line, kind in document.markers:
        # a marked place for the same table replaces the bare marker, which may be above or inside it
        if any(target.name == _BARE[kind] for target in found if not target.table_only):
            continue
        if any(first < line <= end for first, end in places):
            continue
        table = _table_below(document, line, kind, f"{name}:{line}")
        if any(target.name == _BARE[kind] for target in found):
            raise _repeated(_BARE[kind], f"{name}:{line}")
        if any(first < table.line <= end for first, end in places):
            raise ConfigError("the table below the marker is already between two other markers", where=f"{name}:{line}")
        found.append(Target(_BARE[kind], table.line - 1, _last_line_with_pipe(document, table), table_only=True))
    if not found:
        raise ConfigError("no marker in the document", where=name, hint=_HINT)
    for target in found:
        if target.name not in tables:
            raise ConfigError(
                f"the report has no table {target.name}",
                where=f"{name}:{target.first + target.table_only}",
                hint=f"remove the marker; the report has: {', '.join(tables) or 'no tables'}",
            )
    return found


def _table_below(document: Document, line: int, kind: TableKind, where: str) -> Table:
    """Return the table that a bare marker refers to.

    :raises ConfigError: when it is not the template's table, which is the only one that may be replaced, or when it
        begins on the line of a list item.
    """
    table = document.table_after(line)
    if table is None or kind_by_columns(table.columns) is not kind:
        found = "no table below it" if table is None else f"another table below it, on line {table.line}"
        raise ConfigError(
            f"the marker of the table {kind} has {found}",
            where=where,
            hint=f"add that table, or replace the marker by <!-- pooler-harness: {_BARE[kind]} --> and its end marker",
        )
    if document.lines[table.line - 1][: table.header_row.start].strip():
        raise ConfigError(
            f"the table on line {table.line} begins on the line of a list item, so it cannot be replaced alone",
            where=where,
            hint=f"replace the marker by <!-- pooler-harness: {_BARE[kind]} --> and its end marker",
        )
    return table


def _last_line_with_pipe(document: Document, table: Table) -> int:
    """Return the last line of a table with a pipe. Lines without one are rows, too, but probably meant as prose."""
    return next(n for n in range(table.last_line, table.line, -1) if "|" in document.lines[n - 1])


def _marked_places(document: Document, name: str) -> list[Target]:
    """Return the places between a marker and its end marker."""
    found: list[Target] = []
    opened: tuple[str, int] | None = None
    for number, line in enumerate(document.lines, 1):
        match = None if number in document.opaque_lines else _MARKER.fullmatch(line)
        if not match:
            continue
        where = f"{name}:{number}"
        marker = _marker_name(match["content"], where)
        if marker == _END:
            if opened is None:
                raise ConfigError("an end marker without a marker above it", where=where, hint=_HINT)
            found.append(Target(opened[0], opened[1], number - 1, table_only=False))
            opened = None
        elif opened:
            raise ConfigError(
                f"the marker {marker} is inside {opened[0]}, which begins on line {opened[1]}",
                where=where,
                hint=f"end {opened[0]} first: <!-- pooler-harness: end -->",
            )
        elif any(target.name == marker for target in found):
            raise _repeated(marker, where)
        else:
            opened = (marker, number)
    if opened:
        raise ConfigError(
            f"the marker {opened[0]} has no end marker",
            where=f"{name}:{opened[1]}",
            hint="put <!-- pooler-harness: end --> below it, on a line of its own and outside of code",
        )
    return found


def _marker_name(content: str, where: str) -> str:
    """Return the name in a marker.

    :param content: the comment after `pooler-harness`.
    :raises ConfigError: when the name is missing or unknown.
    """
    match = re.fullmatch(r"\s*:\s*(\S+)\s*", content)
    if not match:
        raise ConfigError(
            f"invalid marker {content.strip()!r}, expected a colon and a name",
            where=where,
            hint="write <!-- pooler-harness: NAME -->, with a colon",
        )
    if match[1] not in {*NAMES, _END}:
        hint = nearest(match[1], (*NAMES, _END))
        raise ConfigError(f"unknown table {match[1]!r}", where=where, hint=hint)
    return match[1]


def _repeated(name: str, where: str) -> ConfigError:
    return ConfigError(f"the table {name} is marked twice", where=where, hint="remove one of the two markers")


def _filling(target: Target, content: str, lines: list[str]) -> list[str]:
    """Return the new lines of a target, with the line ends of the document."""
    new = [line.rstrip("\r") for line in re.split(r"\r\n|\n|\r", content.strip("\r\n"))]
    if target.table_only:
        new = _table_of(content, target.name)
        end, last = _end_of(lines[target.first]), _end_of(lines[target.end - 1])
        return [*(line + end for line in new[:-1]), new[-1] + last]
    end = _end_of(lines[target.first - 1])
    # blank lines above and below: without them, the text may be parsed as a part of the comments next to it
    return [end, *(line + end for line in new), end] if any(new) else []


def _table_of(content: str, name: str) -> list[str]:
    """Return the lines of the table itself, without the heading, the marker and the prose around it."""
    document = read_document(content)
    kind = next(kind for kind, known in _BARE.items() if known == name)
    table = next((table for table in document.tables if kind_by_columns(table.columns) is kind), None)
    if table is None:
        raise ConfigError(
            f"the report's text for {name} contains no such table",
            hint="this is a bug of the report, not of the document",
        )
    return list(document.lines[table.line - 1 : table.last_line])


def _end_of(line: str) -> str:
    return line[len(line.rstrip("\r\n")) :]


def _replace(path: Path, data: bytes) -> None:
    """Write a file atomically: a reader sees the old bytes or the new bytes. Its owner and mode stay the same."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(3)}")
    try:
        status = path.stat()
        temporary.write_bytes(data)
        with contextlib.suppress(PermissionError):  # only root can change the owner
            os.chown(temporary, status.st_uid, status.st_gid)
        temporary.chmod(status.st_mode & 0o7777)
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise StoreError(
            f"cannot write the document: {error.strerror or error}",
            where=str(path),
            hint="make its folder writable and free space on the disk; --check writes nothing",
        ) from None
