"""The types of keys in words: what a key takes, and its default as TOML spells it."""

from __future__ import annotations

import json
from enum import Enum
from typing import TYPE_CHECKING

from msgspec import NODEFAULT, Struct
from msgspec.inspect import (
    AnyType,
    BoolType,
    DictType,
    EnumType,
    FloatType,
    IntType,
    LiteralType,
    Metadata,
    NoneType,
    StrType,
    StructType,
    Type,
    UnionType,
    VarTupleType,
)

from harness.audit.target_file import Recorded, TrailFeature
from harness.report.escape import code
from tests.reference.comments import comments_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from msgspec.inspect import Field


#: patterns that say less than their description
_FORMS: Mapping[str | None, str] = {
    r"^\d{4}-\d{2}-\d{2}$": "date, `YYYY-MM-DD`",
    r"^(\d{4}-\d{2}-\d{2})?$": "date, `YYYY-MM-DD`, or empty",
    r"^[0-9]+(\.[0-9]+)*$": "version, such as `1.24`",
    r"^env:[A-Za-z_][A-Za-z0-9_]*$": "`env:NAME` of an environment variable",
    r"^[^\r\n]*\S[^\r\n]*$": "one line of text",
    r"^[^\r\n\x00]*$": "one line of text",
    r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$": "lower-case words and digits with dashes",
    r"^https?://(?![^/\s]*@)\S+\Z": "web address without a login",
    r"^(?=.*\S)[^\x00-\x1f\x7f-\x9f\u2028\u2029]+\Z": "one line of text, not blank",
    r"^(https?://\S+|[\w./#-]+)$": "web address, or a path",
    r"^[A-Za-z_][A-Za-z0-9_$]*\.[A-Za-z_][A-Za-z0-9_$]*$": "table, as `schema.table`",
    r'^[^\s".]+\.[^\s"]+$': "table, as `schema.table`",
    r"^[a-z_][a-z0-9_$]*\.[a-z_][a-z0-9_$]*$": "table, as `schema.table`",
}


class Shape(Struct, frozen=True):
    """How a table appears in a file."""

    #: after the key: `.NAME` for a table of named tables
    suffix: str = ""
    repeated: bool = False


def tables_in(info: Type) -> Iterator[tuple[type[Struct], Shape]]:
    """Yield the tables that a key may hold."""
    for member in _members(info):
        match member:
            case StructType():
                yield member.cls, Shape()
            case VarTupleType(item_type=StructType(cls=kind)):
                yield kind, Shape(repeated=True)
            case DictType(value_type=StructType(cls=kind)):
                yield kind, Shape(suffix=".NAME")


#: choices whose meanings are a table of docs/audit-targets.md
_EXPLAINED = (Recorded, TrailFeature)


def choices_in(info: Type) -> list[type[Enum]]:
    """Return the enumerations that a key takes a value, or a list of values, of."""
    members = _members(info)
    items = [inner for member in members if isinstance(member, VarTupleType) for inner in _members(member.item_type)]
    return [member.cls for member in (*members, *items) if isinstance(member, EnumType)]


def described(info: Type, path: str, headings: Mapping[type[Struct], str]) -> tuple[str, str]:
    """Return what a key takes, as Markdown, and the meanings of its values as far as their comments give them.

    Values that have a table of their own in the document are not explained twice.

    :param headings: the heading of each table.
    """
    meanings = []
    for choices in choices_in(info):
        if choices in _EXPLAINED:
            continue
        comments = comments_of(choices)
        meanings += [f"`{choice.value}`: {comments[choice.name]}" for choice in choices if choice.name in comments]
    return " or ".join(_words(member, path, headings) for member in _members(info)), "; ".join(meanings)


def default_of(field: Field) -> str:
    """Return the default of a key as TOML spells it; a dash for a key that has no value by default."""
    if field.default is NODEFAULT and field.default_factory is NODEFAULT:
        return "required"
    value = field.default if field.default is not NODEFAULT else field.default_factory()
    match value:
        case None | Struct():
            return "–"
        case Enum():
            return code(json.dumps(value.value))
        case tuple() | list():
            return code(json.dumps(list(value)))
        case dict():
            keys = ", ".join(f"{json.dumps(name)} = {json.dumps(one)}" for name, one in value.items())
            return code(f"{{ {keys} }}" if keys else "{}")
        case _:
            return code(json.dumps(value))


def _members(info: Type) -> list[Type]:
    """Return the alternatives of a type, without metadata and without None."""
    if isinstance(info, Metadata):
        return _members(info.type)
    if isinstance(info, UnionType):
        return [inner for member in info.types for inner in _members(member)]
    return [] if isinstance(info, NoneType) else [info]


def _words(info: Type, path: str, headings: Mapping[type[Struct], str]) -> str:
    match info:
        case EnumType():
            words = _alternatives(str(member.value) for member in info.cls)
        case LiteralType():
            words = _alternatives(info.values)
        case BoolType():
            words = _alternatives((True, False))
        case IntType() | FloatType():
            words = _number(info)
        case StrType():
            words = _text(info)
        case StructType():
            words = f"table {code(headings[info.cls])}"
        case VarTupleType(item_type=StructType(cls=kind)):
            words = f"list of tables {code(headings[kind])}"
        case VarTupleType():
            [item] = _members(info.item_type)
            words = f"list of {_words(item, path, headings)}" + (", not empty" if info.min_length else "")
        case DictType(value_type=StructType(cls=kind)):
            words = f"tables {code(headings[kind])}"
        case DictType():
            words = f"table of {_words(info.value_type, path, headings)}"
        case UnionType():
            words = " or ".join(_words(member, path, headings) for member in _members(info))
        case AnyType():
            words = "any value"
        case _:
            raise TypeError(f"{path}: unknown kind of value {info}")
    return words


def _alternatives(values: Iterable[object]) -> str:
    return ", ".join(code(json.dumps(value)) for value in values)


def _number(info: IntType | FloatType) -> str:
    bounds = [
        *([f"at least {info.ge:g}"] if info.ge is not None else []),
        *([f"more than {info.gt:g}"] if info.gt is not None else []),
        *([f"at most {info.le:g}"] if info.le is not None else []),
        *([f"less than {info.lt:g}"] if info.lt is not None else []),
    ]
    return ", ".join(("whole number" if isinstance(info, IntType) else "number", *bounds))


def _text(info: StrType) -> str:
    """Return the restrictions of a text in words; a pattern without a description is printed itself."""
    if info.pattern in _FORMS:
        return _FORMS[info.pattern]
    words = "text"
    if info.max_length:
        words += f" of {info.min_length or 0} to {info.max_length} characters"
    elif info.min_length:
        words += ", not empty" if info.min_length == 1 else f" of at least {info.min_length} characters"
    return words + (f" matching {code(info.pattern)}" if info.pattern else "")
