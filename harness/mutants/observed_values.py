"""Operators on values: each changes one kind of value the way a faulty trail would, and leaves all other values."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, localcontext
from typing import Any

from msgspec import Struct

#: returns another value, or the same one
Operator = Callable[[Any], Any]

_TIMESTAMP = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(\.\d+)?([+-]\d\d(?::?\d\d)?|Z)?")
_BYTES = re.compile(r"\\x(?:[0-9a-f]{2})+")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
#: without the leading zeros
_NUMBER = re.compile(r"0*(\d+(?:\.\d+)?)", re.ASCII)
_SCALED = re.compile(r"(-?\d+\.\d*?)0+")
#: as many fit into 64 bits
_DIGITS = 18
_LARGEST_INT = 2**31
#: numbers of PostgreSQL have up to 131072 digits before the decimal point, and 16383 after it
_EXACT = Context(prec=150_000, Emax=MAX_EMAX, Emin=MIN_EMIN)


class ValueOperator(Struct, frozen=True):
    """How one kind of value is changed."""

    name: str
    #: completes the sentence "a trail that …"; `{values}` is what the values belong to
    what: str
    apply: Operator
    #: whether the new value equals the old one, as their type compares
    equal: bool = False


def _of_text(change: Callable[[str], Any]) -> Operator:
    return lambda value: change(value) if isinstance(value, str) else value


def _of_number(change: Callable[[Any], Any]) -> Operator:
    def apply(value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
            return value
        with localcontext(_EXACT):
            try:
                return change(value)
            except (ArithmeticError, ValueError):  # such as an infinite number
                return value

    return apply


def _of_bool(change: Callable[[bool], Any]) -> Operator:
    return lambda value: change(value) if isinstance(value, bool) else value


def _of_nested(change: Callable[[Any], Any]) -> Operator:
    return lambda value: change(value) if isinstance(value, dict | list) and value else value


def _of_match(pattern: re.Pattern[str], change: Callable[[re.Match[str]], Any]) -> Operator:
    def apply(value: Any) -> Any:
        found = pattern.fullmatch(value) if isinstance(value, str) else None
        return change(found) if found else value

    return apply


def _wrapped(number: Any) -> Any:
    """Return a number as 32 bits hold it."""
    return (number + _LARGEST_INT) % (2 * _LARGEST_INT) - _LARGEST_INT if isinstance(number, int) else number


def _rounded(number: Any) -> Any:
    return number.to_integral_value() if isinstance(number, Decimal) else round(number)


def _without_zeros(value: Any) -> Any:
    """Return a decimal number, or its text, without the last zeros of its fraction."""
    if not isinstance(value, str | Decimal):
        return value
    found = _SCALED.fullmatch(str(value))
    return type(value)(found[1].rstrip(".")) if found else value


def _as_double(number: Any) -> Any:
    return int(float(number)) if isinstance(number, int) else number


def _with_texts(value: Any) -> Any:
    """Return a nested value whose numbers and truth values are texts."""
    if isinstance(value, dict):
        return {key: _with_texts(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_texts(item) for item in value]
    return value if value is None or isinstance(value, str) else json.dumps(value, default=str)


def _flat(value: Any) -> Any:
    """Return a nested value without what is nested deeper."""
    if isinstance(value, dict):
        return {key: None if isinstance(item, dict | list) else item for key, item in value.items()}
    return [None if isinstance(item, dict | list) else item for item in value]


def _deduplicated(value: Any) -> Any:
    return value[:1] if isinstance(value, list) else dict(list(value.items())[:1])


TEXTS = (
    ValueOperator("texts-lower-cased", "turns texts in {values} into lower case", _of_text(str.lower)),
    ValueOperator("texts-upper-cased", "turns texts in {values} into upper case", _of_text(str.upper)),
    ValueOperator("texts-trimmed", "removes blanks around texts in {values}", _of_text(str.strip)),
    ValueOperator("texts-padded", "adds blanks to texts in {values}", _of_text(lambda text: f"{text}  ")),
    ValueOperator("texts-cut-to-3", "cuts texts in {values} to 3 characters", _of_text(lambda text: text[:3])),
    ValueOperator("texts-cut-to-8", "cuts texts in {values} to 8 characters", _of_text(lambda text: text[:8])),
    ValueOperator("texts-cut-to-63", "cuts texts in {values} to 63 characters", _of_text(lambda text: text[:63])),
    ValueOperator("texts-emptied", "keeps no text in {values}", _of_text(lambda _text: "")),
    ValueOperator("texts-prefixed", "puts a mark before texts in {values}", _of_text(lambda text: f"~{text}")),
    ValueOperator(
        "texts-in-ascii",
        "replaces letters beyond ASCII in {values}",
        _of_text(lambda text: text.encode("ascii", "replace").decode()),
    ),
    ValueOperator(
        "texts-on-one-line", "replaces line feeds in {values}", _of_text(lambda text: text.replace("\n", " "))
    ),
    ValueOperator(
        "quotes-doubled", "doubles quotes in texts of {values}", _of_text(lambda text: text.replace("'", "''"))
    ),
    ValueOperator(
        "backslashes-doubled",
        "doubles backslashes in texts of {values}",
        _of_text(lambda text: text.replace("\\", "\\\\")),
    ),
    ValueOperator("empty-texts-as-null", "keeps NULL for empty texts in {values}", _of_text(lambda text: text or None)),
)
NUMBERS = (
    ValueOperator("numbers-as-text", "keeps numbers in {values} as texts", _of_number(str)),
    ValueOperator(
        "numbers-off-by-one", "keeps numbers in {values} that are one too large", _of_number(lambda n: n + 1)
    ),
    ValueOperator("numbers-negated", "changes the sign of numbers in {values}", _of_number(lambda number: -number)),
    ValueOperator("signs-dropped", "drops the sign of negative numbers in {values}", _of_number(abs)),
    ValueOperator("numbers-rounded", "rounds fractions in {values}", _of_number(_rounded)),
    ValueOperator(
        "fractions-cut",
        "keeps one digit of fractions in {values}",
        _of_number(lambda number: type(number)(round(number, 1))),
    ),
    ValueOperator("numbers-in-32-bits", "keeps integers in {values} in 32 bits", _of_number(_wrapped)),
    ValueOperator("integers-as-doubles", "keeps integers in {values} in double precision", _of_number(_as_double)),
    ValueOperator("numbers-as-zero", "keeps 0 for every number in {values}", _of_number(lambda number: number * 0)),
    ValueOperator(
        "zeros-as-null", "keeps NULL for 0 in {values}", _of_number(lambda number: None if number == 0 else number)
    ),
    ValueOperator(
        "digits-as-numbers",
        "keeps texts of digits in {values} as numbers",
        _of_match(_NUMBER, lambda found: json.loads(found[1]) if len(found[1]) <= _DIGITS else Decimal(found[1])),
    ),
    ValueOperator(
        "scales-dropped",
        "drops the last zeros of decimal numbers in {values}",
        _without_zeros,
        equal=True,
    ),
)
OTHERS = (
    ValueOperator(
        "booleans-as-text", "keeps truth values in {values} as texts", _of_bool(lambda value: str(value).lower())
    ),
    ValueOperator(
        "booleans-negated", "keeps the opposite of truth values in {values}", _of_bool(lambda value: not value)
    ),
    ValueOperator("false-as-null", "keeps NULL for false in {values}", _of_bool(lambda value: value or None)),
    ValueOperator("nulls-as-empty-text", "keeps an empty text for NULL in {values}", lambda v: "" if v is None else v),
    ValueOperator("nulls-as-text", "keeps the text null for NULL in {values}", lambda v: "null" if v is None else v),
    ValueOperator("nested-emptied", "keeps no nested value in {values}", _of_nested(lambda value: type(value)())),
    ValueOperator(
        "nested-as-text", "keeps nested values in {values} as texts", _of_nested(lambda v: json.dumps(v, default=str))
    ),
    ValueOperator("nested-as-null", "keeps NULL for nested values in {values}", _of_nested(lambda _value: None)),
    ValueOperator("nested-flat", "cuts nested values in {values} below their first level", _of_nested(_flat)),
    ValueOperator("nested-retyped", "keeps numbers of nested values in {values} as texts", _of_nested(_with_texts)),
    ValueOperator("nested-first-only", "keeps the first item of nested values in {values}", _of_nested(_deduplicated)),
    ValueOperator(
        "arrays-reversed",
        "reverses arrays in {values}",
        lambda value: value[::-1] if isinstance(value, list) else value,
    ),
    ValueOperator(
        "zones-dropped",
        "drops the time zone of times in {values}",
        _of_match(_TIMESTAMP, lambda found: found[0].removesuffix(found[4] or "")),
    ),
    ValueOperator(
        "seconds-cut",
        "drops fractions of seconds in {values}",
        _of_match(_TIMESTAMP, lambda found: found[0].replace(found[3] or "", "")),
    ),
    ValueOperator("times-cut", "keeps the day of times in {values}", _of_match(_TIMESTAMP, lambda found: found[1])),
    ValueOperator(
        "bytes-as-base64",
        "keeps bytes in {values} as Base64",
        _of_match(_BYTES, lambda found: base64.b64encode(bytes.fromhex(found[0][2:])).decode()),
    ),
    ValueOperator(
        "bytes-without-prefix",
        "drops the prefix of bytes in {values}",
        _of_match(_BYTES, lambda found: found[0][2:]),
    ),
    ValueOperator(
        "uuids-without-dashes",
        "drops the dashes of UUIDs in {values}",
        _of_match(_UUID, lambda found: found[0].replace("-", "")),
        equal=True,
    ),
)
