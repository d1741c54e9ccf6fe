"""TOML files to typed data. Errors name the file, the key, what was found and what is allowed."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from datetime import date, time
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from harness.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

T = TypeVar("T")

_AT = re.compile(r" - at (?P<key>`key` in )?`(?:key in )?\$(?P<path>[^`]*)`$")
_FIELD = re.compile(r"`(?P<name>.*)`", re.DOTALL)
#: msgspec's names of TOML's types
_TYPES = {
    "object": "a table",
    "array": "a list",
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true, false",
    "null": "",
}
_EXPECTED = re.compile(r"^Expected `(?P<types>[a-z| ]+)`(?: of length (?P<length>[<>=]+ \d+))?(?:, got `.*`)?$")
_LONGEST_KEY = 80


def load(
    path: Path,
    kind: type[T],
    given: Mapping[str, Any] | None = None,
    *,
    elsewhere: Callable[[Mapping[str, Any]], tuple[str, str, str] | None] = lambda _: None,
) -> T:
    """Read one TOML file as `kind`, strictly: unknown keys, wrong types and invalid values are errors.

    :param kind: a msgspec Struct that forbids unknown fields.
    :param given: fields that the file must not set, with their values, such as the name of the file. A key of that name
        in the file is an unknown key.
    :param elsewhere: gets the decoded file, and returns a key that belongs to another place, the problem, and a hint;
        None if it knows of none.
    :raises ConfigError: with file, line and key.
    """
    try:
        if path.exists() and not path.is_file():  # a FIFO would block for ever
            raise ConfigError("expected a regular file", where=str(path))
        # without newline translation: in TOML a lone carriage return ends no line; some editors begin with a BOM
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError("no such file", where=str(path)) from None
    except UnicodeDecodeError as error:
        what = f"the file is not UTF-8 text: found the byte 0x{error.object[error.start]:02x} at position {error.start}"
        raise ConfigError(what, where=str(path)) from None
    except OSError as error:
        raise ConfigError(f"the file cannot be read: {error}", where=str(path)) from None
    try:
        raw, with_nul = _parsed(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"invalid TOML: {error}", where=str(path)) from None
    except ValueError as error:  # a whole number of more digits than Python converts
        raise ConfigError(f"invalid TOML: {error}", where=str(path)) from None
    except RecursionError:  # the parser is recursive
        raise ConfigError("invalid TOML: nested too deep", where=str(path)) from None
    if with_nul:  # no path, name or SQL can hold one
        where = at_key(str(path), re.sub(r"\[.*?\]", "", with_nul))
        raise ConfigError(f"{with_nul}: found a NUL character", where=where)
    if misplaced := elsewhere(raw):
        key, problem, hint = misplaced
        raise ConfigError(f"{key}: {problem}", where=at_key(str(path), key), hint=hint)
    try:
        return convert(raw, kind, where=str(path), given=given)
    except ConfigError as error:  # the message begins with the key; its line helps in a long file
        error.where = at_key(str(path), re.sub(r"\[.*?\]", "", error.what.partition(":")[0]))
        raise


@lru_cache(maxsize=256)
def _parsed(text: str) -> tuple[dict[str, Any], str]:
    """Parse a text once, and return the path of its first NUL character as well; "" without one.

    One command reads the topologies and the other shipped files several times.
    """
    raw = tomllib.loads(text)
    return raw, _with_nul(raw)


def convert(raw: dict[str, Any], kind: type[T], *, where: str, given: Mapping[str, Any] | None = None) -> T:
    """Convert decoded data to `kind`, as :func:`load` does with the contents of a file.

    :param where: a name for the source of the data, for errors.
    :param given: see :func:`load`.
    :raises ConfigError: with the key.
    """
    given = given or {}
    for key in given.keys() & raw.keys():
        raise _explained(f"Object contains unknown field `{key}`", raw, kind, where, hidden=tuple(given))
    try:
        return msgspec.convert({**raw, **given}, kind, strict=True)
    except msgspec.ValidationError as error:
        raise _explained(str(error), raw, kind, where, hidden=tuple(given)) from None


def _with_nul(data: Any, path: str = "") -> str:
    """Return the path of the first key or text with a NUL character; "" without one."""
    if isinstance(data, dict):
        inner = [(f"{path}.{_key(key)}" if path else _key(key), value) for key, value in data.items()]
        return next((at for (at, value), key in zip(inner, data, strict=True) if "\0" in key), "") or next(
            (found for at, value in inner if (found := _with_nul(value, at))), ""
        )
    if isinstance(data, list):
        numbered = ((f"{path}[{number}]", value) for number, value in enumerate(data))
        return next((found for at, value in numbered if (found := _with_nul(value, at))), "")
    return path if isinstance(data, str) and "\0" in data else ""


def at_key(path: str, key: str, value: str = "") -> str:
    """Return `path:line` of the first line that sets a key; only the path when no line does.

    :param key: after the name of its table and a dot, lines below the table's heading count first.
    :param value: of a key in a list of tables: only a line that sets it to this text counts.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return path
    table, _, last = key.rpartition(".")
    heading = re.compile(rf"\s*\[\[?{re.escape(table)}\]") if table else None
    start = next((n for n, line in enumerate(lines) if heading and heading.match(line)), 0)
    sets = re.compile(rf"\s*[\"']?{re.escape(last)}[\"']?\s*=" + (rf"\s*[\"']{re.escape(value)}[\"']" if value else ""))
    found = [n for n, line in enumerate(lines) if sets.match(line)]
    number = next((n for n in found if n >= start), found[0] if found else None)
    return path if number is None else f"{path}:{number + 1}"


def nearest(name: str, names: Iterable[str]) -> str:
    """Return a hint for an unknown name: the closest known names, else all known names; "" when there are none."""
    names = sorted(names)
    return close_to(name, names) or (f"choose one of: {', '.join(names)}" if names else "")


def close_to(name: str, names: Iterable[str]) -> str:
    """Return a hint for an unknown name: the closest known names; "" when none is close."""
    close = difflib.get_close_matches(name, sorted(names), n=3, cutoff=0.6)
    return f"did you mean {' or '.join(close)}?" if close else ""


def _shown(found: object) -> str:
    match found:
        case bool():
            shown = str(found).lower()
        case dict():
            shown = "a table"
        case list():
            shown = "a list" if found else "an empty list"
        case date() | time():  # a time with a date is a date, too
            shown = f"the date or time {found.isoformat()}"
        case str() if len(found) > _LONGEST_KEY:
            shown = f"{found[:_LONGEST_KEY]!r}…"
        case _:
            try:
                shown = repr(found)
            except ValueError:  # Python prints no number of more than some thousand digits
                shown = "a very large number"
    return shown


def _explained(message: str, raw: Any, kind: type, where: str, *, hidden: tuple[str, ...] = ()) -> ConfigError:
    """Turn msgspec's message into an error that names the key, the value and what is allowed.

    :param hidden: fields that are not keys of the outermost table.
    """
    match = _AT.search(message)
    path = match["path"].lstrip(".") if match else ""
    if (found := _in_table(path, raw, kind, where)) is not None:
        return found
    problem = message[: match.start()] if match else message
    found = _walk_data(raw, path)
    expected = _walk_type(kind, path)
    names = [field.encode_name for field in getattr(expected, "fields", ())]
    names = [name for name in names if path or name not in hidden]
    if field := _FIELD.search(problem) if problem.startswith("Object ") else None:
        named = _key(field["name"])
        key = f"{path}.{named}" if path else named
        if "unknown" in problem:
            return ConfigError(
                f"{key}: unknown key; allowed here: {', '.join(names)}",
                where=where,
                hint=_of_outer(field["name"], path, kind) or nearest(field["name"], names),
            )
        return ConfigError(f"{key}: missing key", where=where)
    if isinstance(found, dict) and problem.startswith("Expected `array`"):
        return ConfigError(f"{path}: found a table, allowed: a list of tables", where=where, hint=f"write [[{path}]]")
    allowed = _allowed(expected) or _in_words(problem)
    hint = close_to(found, allowed.split(", ")) if isinstance(found, str) and _is_choice(expected) else ""
    if isinstance(found, date | time) and isinstance(expected, msgspec.inspect.StrType):
        hint = f'write it in quotes: "{found.isoformat()}"'
    shown = _shown(found)
    if "env:" in allowed:  # only the name of a variable is allowed, so another text may be a secret
        shown = "another text"
        hint = "keep the secret in an environment variable, and write env:NAME with its name"
    if match and match["key"]:  # the key itself is invalid, not its value
        return ConfigError(
            f"{path}: invalid key: {problem.replace('Expected `str` matching regex', 'expected text matching')}",
            where=where,
        )
    return ConfigError(f"{path or 'the document'}: found {shown}, allowed: {allowed}", where=where, hint=hint)


def _of_outer(name: str, path: str, kind: type) -> str:
    """Return a hint for a key of a table around the one that it is in: a table header takes all keys below it."""
    while path:
        before = path.rpartition(".")[0]
        if name in [field.encode_name for field in getattr(_walk_type(kind, before), "fields", ())]:
            table = f"[{before}]" if before else "the file itself"
            return f"{name} is a key of {table}: write it above the line [{path}]"
        path = before
    return ""


def _key(name: str) -> str:
    """Return a key as TOML spells it, cut after some characters."""
    shown = name if len(name) <= _LONGEST_KEY else f"{name[:_LONGEST_KEY]}…"
    return shown if re.fullmatch(r"[\w.+…-]+", shown) else json.dumps(shown, ensure_ascii=False)


def _in_words(problem: str) -> str:
    """Return what msgspec expected, without its names of types."""
    if (match := _EXPECTED.match(problem)) is None:
        return problem
    words = [_TYPES.get(name, name) for name in match["types"].split(" | ")]
    length = (
        f" of {match['length'].replace('>= ', 'at least ').replace('<= ', 'at most ')} entries"
        if match["length"]
        else ""
    )
    return " or ".join(filter(None, words)) + length.replace(" 1 entries", " 1 entry")


def _in_table(path: str, raw: Any, kind: type, where: str) -> ConfigError | None:
    """Return the error of the first invalid entry of a table, with its name: msgspec's path has only `[...]` for it."""
    before, named, _ = path.partition("[...]")
    info = _walk_type(kind, before) if named else None
    value_type = getattr(_one_of(getattr(info, "value_type", None)), "cls", None)
    entries = _walk_data(raw, before)
    text = _one_of(getattr(info, "value_type", None))
    if isinstance(entries, dict) and isinstance(text, msgspec.inspect.StrType):
        return _not_a_text(before, entries, text, where)
    if value_type is None or not isinstance(entries, dict):
        return None
    for name, value in entries.items():
        try:
            msgspec.convert(value, value_type, strict=True)
        except msgspec.ValidationError as error:
            inner = _explained(str(error), value, value_type, where)
            inner.what = f"{before}.{_key(name)}.{inner.what}"
            inner.args = (inner.what,)
            return inner
    return None


def _not_a_text(table: str, entries: dict[str, Any], kind: msgspec.inspect.StrType, where: str) -> ConfigError | None:
    """Return the error of the first entry of a table of texts that is none, or has another form."""
    for name, value in entries.items():
        if not isinstance(value, str):
            what = f"{table}.{_key(name)}: found {_shown(value)}, allowed: a text in quotes"
            hint = f'write {_key(name)} = "{str(value).lower()}"' if isinstance(value, int | float) else ""
            return ConfigError(what, where=where, hint=hint)
        if kind.pattern and not re.search(kind.pattern, value):  # it may be a secret
            return ConfigError(f"{table}.{_key(name)}: found another text, allowed: {_allowed(kind)}", where=where)
    return None


def _steps(path: str) -> list[str | int]:
    parts = re.findall(r"[^.\[\]]+|\[\d+\]", path)
    return [int(part[1:-1]) if part.startswith("[") else part for part in parts]


def _walk_data(raw: Any, path: str) -> Any:
    for step in _steps(path):
        if step == "...":
            continue
        try:
            raw = raw[step]
        except (KeyError, IndexError, TypeError):
            return None
    return raw


def _walk_type(kind: type, path: str) -> Any:
    at: Any = msgspec.inspect.type_info(kind)
    for step in _steps(path):
        at = _one_of(at)
        if isinstance(at, msgspec.inspect.StructType):
            at = next((field.type for field in at.fields if field.encode_name == step), None)
        elif isinstance(at, msgspec.inspect.DictType):
            at = at.value_type
        else:
            at = getattr(at, "item_type", None)
    return _one_of(at)


def _one_of(info: Any) -> Any:
    """Return the only member of an optional type besides None; any other type unchanged."""
    if isinstance(info, msgspec.inspect.UnionType):
        members = [member for member in info.types if not isinstance(member, msgspec.inspect.NoneType)]
        return members[0] if len(members) == 1 else info
    if isinstance(info, msgspec.inspect.Metadata):
        return info.type
    return info


def _is_choice(info: Any) -> bool:
    return isinstance(info, msgspec.inspect.EnumType | msgspec.inspect.LiteralType)


def _allowed(info: Any) -> str:
    """Return the allowed values of a type in words; "" for types without a short description."""
    if isinstance(info, msgspec.inspect.EnumType):
        return ", ".join(str(member.value) for member in info.cls)
    if isinstance(info, msgspec.inspect.LiteralType):
        return ", ".join(map(str, info.values))
    if isinstance(info, msgspec.inspect.IntType):
        return "a whole number" + (
            f" from {info.ge} to {info.le}"
            if info.le is not None
            else f" of at least {info.ge}"
            if info.ge is not None
            else ""
        )
    if isinstance(info, msgspec.inspect.StrType):
        return "text" + _form(info)
    if isinstance(info, msgspec.inspect.BoolType):
        return "true, false"
    return ""


def _form(info: msgspec.inspect.StrType) -> str:
    """Return the restrictions of a text in words, with a leading blank; "" without restrictions."""
    if info.pattern:
        return f" matching {info.pattern}"
    if info.max_length:
        return f" of {info.min_length or 0} to {info.max_length} characters"
    least = f"{info.min_length} character{'' if info.min_length == 1 else 's'}"
    return f" of at least {least}" if info.min_length else ""
