"""Put the report's tables into a document that a team owns: between markers, and nowhere else.

A place is marked by two HTML comments, each on a line of its own:

    <!-- pooler-harness: stg-01 -->
    <!-- pooler-harness: end -->

What lies between is replaced whole. Where a document has the bare marker of the adoption template instead, the lines
of the table below it are replaced, and nothing around them. All other bytes stay: line ends, a byte order mark, and
what is no UTF-8.
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
from harness.markdown.tables import Kind, kind_of, read_document

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from harness.markdown.tables import Document, Table

#: what can be put into a document, by the name that its marker has
NAMES = ("stg-01", "stg-02", "checklist", "issues", "feature-map", "readiness", "preflight", "parity")

_BARE = {Kind.TOPOLOGY: "stg-01", Kind.PATHS: "stg-02"}
_MARKER = re.compile(r" {0,3}<!--\s*pooler-harness\b(?P<said>.*?)-->[ \t]*")
#: the mark of a list item before the first cell of a table
_BEGINS_ITEM = re.compile(r"\s*(?:[-+*]|\d+[.)])\s")
_END = "end"
_HINT = (
    "put <!-- pooler-harness: stg-01 --> and <!-- pooler-harness: end --> on lines of their own, where the table shall "
    f"be; the names are {', '.join(NAMES)}"
)


class Target(Struct, frozen=True):
    """What is replaced: the lines from `first` up to, and without, `end`; both count from 0."""

    name: str
    first: int
    end: int
    #: only the table's lines, not what stands around the table
    table_only: bool


def splice(document: bytes, tables: Mapping[str, str], *, name: str = "the document") -> bytes:
    """Return the document with its marked places filled. Splicing again changes nothing.

    :param tables: Markdown by marker name, such as `stg-01`.
    :param name: how errors call the document.
    :raises ConfigError: for markers that are unknown, unpaired, nested or repeated, and when there is none.
    """
    before = document.decode("utf-8", "surrogateescape")
    after = _filled(before, tables, name)
    with contextlib.suppress(ConfigError):
        if _filled(after, tables, name) == after:
            return after.encode("utf-8", "surrogateescape")
    raise ConfigError(
        "what the report has to put here would hide or add markers", where=name, hint="this is a mistake of the report"
    )


def _filled(text: str, tables: Mapping[str, str], name: str) -> str:
    lines = re.findall(r"[^\r\n]*(?:\r\n|\n|\r)|[^\r\n]+\Z", text)
    for target in sorted(_targets(read_document(text), tables, name), key=lambda each: each.first, reverse=True):
        lines[target.first : target.end] = _filling(target, tables[target.name], lines)
    return "".join(lines)


def into(path: Path, tables: Mapping[str, str], *, check: bool) -> bool:
    """Fill the marked places of a file; return whether it was up to date.

    A link is followed, the file keeps its mode, and it is written only where something changes, whole or not at all.

    :param check: only look, and write nothing.
    :raises ConfigError: as :func:`splice` does, and when the file cannot be read or is no regular file.
    :raises StoreError: when it cannot be written.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe may never end
            raise ConfigError("the document cannot be read: it is no regular file", where=str(path))
        before = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError("there is no such document", where=str(path), hint=f"write it first, and {_HINT}") from None
    except OSError as error:
        raise ConfigError(f"the document cannot be read: {error.strerror or error}", where=str(path)) from None
    after = splice(before, tables, name=str(path))
    if after != before and not check:
        _replace(path.resolve(), after)
    return after == before


def _targets(document: Document, tables: Mapping[str, str], name: str) -> list[Target]:
    found = _blocks(document, name)
    inside = [(target.first, target.end) for target in found]
    for line, kind in document.markers:
        # the template's marker may stand above, or in, a block of ours
        if any(target.name == _BARE[kind] for target in found if not target.table_only):
            continue
        if any(first < line <= end for first, end in inside):
            continue
        table = _below(document, line, kind, f"{name}:{line}")
        if any(target.name == _BARE[kind] for target in found):
            raise _twice(_BARE[kind], f"{name}:{line}")
        if any(first < table.line <= end for first, end in inside):
            raise ConfigError("the table below the marker is already in a marked place", where=f"{name}:{line}")
        found.append(Target(_BARE[kind], table.line - 1, _last_piped(document, table), table_only=True))
    if not found:
        raise ConfigError("no marker says where the tables belong", where=name, hint=_HINT)
    for target in found:
        if target.name not in tables:
            raise ConfigError(
                f"the report has no table {target.name}",
                where=f"{name}:{target.first + target.table_only}",
                hint=f"take the marker out; there are: {', '.join(tables) or 'none'}",
            )
    return found


def _below(document: Document, line: int, kind: Kind, where: str) -> Table:
    """Return the table that a bare marker is about; another one than the template's is not ours to replace."""
    table = document.marked(line)
    if table is None or kind_of(table.columns) is not kind:
        found = "no table below it" if table is None else f"another table below it, on line {table.line}"
        raise ConfigError(
            f"the marker of the table {kind} has {found}",
            where=where,
            hint=f"put that table there, or instead of the marker <!-- pooler-harness: {_BARE[kind]} --> and its end",
        )
    if _BEGINS_ITEM.match(document.lines[table.line - 1]):
        raise ConfigError(
            f"the table on line {table.line} begins in a list, and cannot be replaced alone",
            where=where,
            hint=f"put <!-- pooler-harness: {_BARE[kind]} --> and its end there instead of the marker",
        )
    return table


def _last_piped(document: Document, table: Table) -> int:
    """Return the last line of a table with a pipe; GitHub shows prose right below as rows, and it is not ours."""
    return next(n for n in range(table.last_line, table.line, -1) if "|" in document.lines[n - 1])


def _blocks(document: Document, name: str) -> list[Target]:
    """Return the places between a marker and its end."""
    found: list[Target] = []
    opened: tuple[str, int] | None = None
    for number, line in enumerate(document.lines, 1):
        match = _MARKER.fullmatch(line) if document.plainly[number - 1] else None
        if not match:
            continue
        where = f"{name}:{number}"
        said = _named(match["said"], where)
        if said == _END:
            if opened is None:
                raise ConfigError("this marker ends nothing: none begins above it", where=where, hint=_HINT)
            found.append(Target(opened[0], opened[1], number - 1, table_only=False))
            opened = None
        elif opened:
            raise ConfigError(
                f"{said} begins inside {opened[0]}, which began on line {opened[1]}",
                where=where,
                hint="end that one first: <!-- pooler-harness: end -->",
            )
        elif any(each.name == said for each in found):
            raise _twice(said, where)
        else:
            opened = (said, number)
    if opened:
        raise ConfigError(
            f"{opened[0]} begins here and does not end",
            where=f"{name}:{opened[1]}",
            hint="put <!-- pooler-harness: end --> below it, on a line of its own and outside of code",
        )
    return found


def _named(said: str, where: str) -> str:
    """Return the name in a marker."""
    match = re.fullmatch(r"\s*:\s*(\S+)\s*", said)
    if not match:
        raise ConfigError(
            f"the marker says {said.strip()!r}", where=where, hint="<!-- pooler-harness: NAME -->, with a colon"
        )
    if match[1] not in {*NAMES, _END}:
        hint = nearest(match[1], (*NAMES, _END))
        raise ConfigError(f"there is no table {match[1]!r} to put here", where=where, hint=hint)
    return match[1]


def _twice(name: str, where: str) -> ConfigError:
    return ConfigError(f"{name} is marked twice, the second time here", where=where, hint="keep one of the two")


def _filling(target: Target, content: str, lines: list[str]) -> list[str]:
    """Return the lines that take the place of a target's, ended as the document's are."""
    new = [line.rstrip("\r") for line in re.split(r"\r\n|\n|\r", content.strip("\r\n"))]
    if target.table_only:
        new = _table_of(content, target.name)
        end, last = _end_of(lines[target.first]), _end_of(lines[target.end - 1])
        return [*(line + end for line in new[:-1]), new[-1] + last]
    end = _end_of(lines[target.first - 1])
    # a blank line on each side: what stands right above or below a comment may be taken for a part of it
    return [end, *(line + end for line in new), end] if any(new) else []


def _table_of(content: str, name: str) -> list[str]:
    """Return the lines of the table itself, without heading, marker and prose."""
    document = read_document(content)
    kind = next(kind for kind, known in _BARE.items() if known == name)
    table = next((each for each in document.tables if kind_of(each.columns) is kind), None)
    if table is None:
        raise ConfigError(f"what the report has for {name} holds no such table", hint="this is a mistake of the report")
    return list(document.lines[table.line - 1 : table.last_line])


def _end_of(line: str) -> str:
    return line[len(line.rstrip("\r\n")) :]


def _replace(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old bytes or the new ones, under the owner and mode that it has."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(3)}")
    try:
        status = path.stat()
        temporary.write_bytes(data)
        with contextlib.suppress(PermissionError):  # only root can give a file away
            os.chown(temporary, status.st_uid, status.st_gid)
        temporary.chmod(status.st_mode & 0o7777)
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise StoreError(
            f"the document cannot be written: {error.strerror or error}",
            where=str(path),
            hint="is its folder writable, and the disk not full? --check only looks",
        ) from None
