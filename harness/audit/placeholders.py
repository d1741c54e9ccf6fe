"""Placeholders of an audit target's statements: names become quoted identifiers and literals.

A statement can name the table that it is about, and the roles: `{table}`, `{schema}`, `{name}`, `{role}`, `{owner}`.
With `_literal` after the name it is a text literal. A plus joins fixed parts with a name to one quoted identifier, such
as `{audit_+name}` or `{name+_history}`, which is cut to 63 bytes, as PostgreSQL cuts it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.config import close_to
from harness.database import is_quoted, quote_identifier, quote_literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: the names that every statement about a table can use, and those that every statement can use
TABLE_NAMES, ROLE_NAMES = ("table", "schema", "name"), ("role", "owner")
#: PostgreSQL's limit of an identifier, in bytes
LONGEST_NAME = 63
_LITERAL = "_literal"
_BRACES = re.compile(r"\{(?P<inside>[^{}\s'\"]*)\}")
#: in quotes of its own, and not in doubled ones, which are part of a longer literal
_IN_QUOTES = re.compile(r"(?<!')'\{(?P<inside>[^{}\s'\"]*)\}'(?!')")
_PART = "[A-Za-z0-9_$]*"
_SIMPLE = re.compile(r"^[a-z_][a-z0-9_$]*$")


class Name(Struct, frozen=True):
    """A name in a statement."""

    #: as the server stores it
    stored: str
    #: its spelling in SQL; "" for the name in quotes
    spelling: str = ""

    @property
    def identifier(self) -> str:
        return self.spelling or quote_identifier(self.stored)


def role_names(role: str, owner: str) -> dict[str, Name]:
    """Return the names that every statement can use.

    :param role: the application's role.
    :param owner: the role that owns the audited tables.
    """
    return {"role": _plain(role), "owner": _plain(owner)}


def table_names(table: str) -> dict[str, Name]:
    """Return the names that a statement about a table can use.

    :param table: an SQL identifier, quoted and qualified where needed. A table without a schema is in `public`.
    """
    *qualified, last = split_identifier(table)
    schema = qualified[-1] if qualified else "public"
    return {
        "table": Name(table, table),
        "schema": Name(unquoted(schema), schema),
        "name": Name(unquoted(last), last),
    }


def fill(statement: str, names: Mapping[str, Name], texts: Mapping[str, str] | None = None) -> str:
    """Return a statement with its placeholders replaced. Braces that hold none of the names stay as they are.

    :param names: by the name of the placeholder.
    :param texts: SQL texts by the name of the placeholder; they replace it unchanged.
    """
    texts = texts or {}

    def value(match: re.Match[str]) -> str:
        inside = match["inside"]
        if inside in texts:
            return texts[inside]
        found = _value(inside, names)
        return match[0] if found is None else found

    return _BRACES.sub(value, statement)


def _value(inside: str, names: Mapping[str, Name]) -> str | None:
    if inside in names:
        return names[inside].identifier
    if inside.endswith(_LITERAL) and (name := names.get(inside.removesuffix(_LITERAL))) is not None:
        return quote_literal(name.stored)
    parts = inside.split("+")
    if len(parts) == 1 or not all(re.fullmatch(_PART, part) for part in parts):
        return None
    named = [part in names and part != "table" for part in parts]
    if named.count(True) != 1:
        return None
    joined = "".join(names[part].stored if is_name else part for part, is_name in zip(parts, named, strict=True))
    return quote_identifier(cut_name(joined))


def uses(statement: str, names: Iterable[str]) -> bool:
    """Return whether a statement has a placeholder of one of these names."""
    known = {name: Name("x") for name in names}
    return any(_value(match["inside"], known) is not None for match in _BRACES.finditer(statement))


def unknown_placeholder(statement: str, names: Iterable[str], texts: Iterable[str] = ()) -> tuple[str, str] | None:
    """Return the first placeholder that a statement cannot have, in a sentence, and a hint; None if it has none.

    Braces in quotes and in comments may be anything.

    :param names: the names that the statement can use, and `texts` those that stand for SQL texts.
    """
    known = {name: Name("x") for name in names}
    for match in _BRACES.finditer(statement):
        inside = match["inside"]
        if inside in texts or _value(inside, known) is not None or is_quoted(statement, match.start()):
            continue
        shown = [*known, *(f"{name}{_LITERAL}" for name in known), *texts]
        hint = close_to(inside, shown) or f"known here: {', '.join(f'{{{name}}}' for name in shown)}"
        return f"unknown placeholder {{{inside}}}", hint
    return None


def quoted_literal(statement: str, names: Iterable[str], texts: Iterable[str] = ()) -> tuple[str, str] | None:
    """Return the first placeholder for a literal that is in quotes, in a sentence, and a hint; None if none is.

    :param names: see :func:`unknown_placeholder`, and `texts`.
    """
    literals = {*texts, *(f"{name}{_LITERAL}" for name in names)}
    for match in _IN_QUOTES.finditer(statement):
        if match["inside"] in literals:
            placeholder = f"{{{match['inside']}}}"
            return f"{placeholder} is in quotes", f"write {placeholder} without quotes: it stands for a literal"
    return None


def cut_name(name: str) -> str:
    """Return a name as PostgreSQL cuts it: to 63 bytes, and not within a character."""
    return name.encode()[:LONGEST_NAME].decode(errors="ignore")


def split_identifier(identifier: str) -> list[str]:
    """Return the parts of a qualified SQL identifier, each with its quotes."""
    parts, inside, start = [], False, 0
    for at, character in enumerate(identifier):
        if character == '"':
            inside = not inside
        elif character == "." and not inside:
            parts.append(identifier[start:at])
            start = at + 1
    return [*parts, identifier[start:]]


def unquoted(part: str) -> str:
    """Return a part of an SQL identifier as the server stores it."""
    if part.startswith('"') and part.endswith('"') and len(part) > 1:
        return part[1:-1].replace('""', '"')
    return part.lower()


def _plain(name: str) -> Name:
    """Return a name that needs quotes only if it is not a plain one."""
    return Name(name, name if _SIMPLE.match(name) else "")
