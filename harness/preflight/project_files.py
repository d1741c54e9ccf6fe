"""A library's and a consumer's files, read as text, and what a preflight can be told from them."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any

from msgspec import Struct

from harness.errors import ConfigError

#: of one file; a lock file of a large application has a few megabytes
LARGEST_BYTES = 20 * 1024 * 1024


class Folder(Struct, frozen=True, kw_only=True):
    """A folder that a declaration names."""

    path: Path
    #: what evidence names files from
    root: Path

    def text(self, name: str) -> str | None:
        """Return a file's text; None where there is no such file, or the name leads out of the folder.

        :raises ConfigError: where it is there and cannot be read as text, or is larger than 20 MB.
        """
        path = self.path / name
        try:
            if ".." in Path(name).parts or Path(name).is_absolute() or not path.is_file():
                return None
            if path.stat().st_size > LARGEST_BYTES:
                raise ConfigError(f"it is larger than {LARGEST_BYTES // 1024 // 1024} MB", where=self.at(name))
            return path.read_text(encoding="utf-8-sig")
        except (OSError, ValueError) as error:
            raise ConfigError(f"it cannot be read as text: {error}", where=self.at(name)) from None

    def at(self, name: str, line: int | None = None) -> str:
        """Return what evidence calls a place in a file: `lib/pyproject.toml:3`."""
        told = Path(os.path.relpath(self.path / name, self.root)).as_posix()
        return f"{told}:{line}" if line else told

    def toml(self, name: str) -> dict[str, Any]:
        """Return a TOML file's data; nothing where there is no such file.

        :raises ConfigError: where it is no TOML.
        """
        text = self.text(name)
        try:
            return tomllib.loads(text) if text is not None else {}
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise ConfigError(f"it is not TOML: {error}", where=self.at(name)) from None


class Reading(Struct, frozen=True, kw_only=True):
    """What a file says, or why that cannot be told from it."""

    value: str = ""
    #: the file and line
    at: str = ""
    #: set when there is no value
    why: str = ""


class Manifest(Struct, frozen=True, kw_only=True):
    """A project's own name and version."""

    #: the manifest's file name
    file: str
    package: str
    version: Reading


class Constraint(Struct, frozen=True, kw_only=True):
    """A constraint that a README tells its readers to write down."""

    text: str
    at: str
    #: None where it cannot be judged
    admits: bool | None
    #: why it does not admit, or cannot be judged
    why: str = ""


class Locked(Struct, frozen=True, kw_only=True):
    """What one lock file has of the package."""

    at: str
    #: "" when the lock has no version, or none of the package
    version: str
    #: why this is not a resolved release
    problem: str = ""


class Override(Struct, frozen=True, kw_only=True):
    """Something that makes a resolver take what it would not have chosen."""

    package: str
    at: str
    what: str


class Resolution(Struct, frozen=True, kw_only=True):
    """How a consumer's files resolve a package."""

    locked: tuple[Locked, ...] = ()
    overrides: tuple[Override, ...] = ()
    #: what the package depends on directly, as the lock has it
    depends_on: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    #: why something that could make it different cannot be told
    unread: str = ""


def table(value: Any, *keys: str) -> dict[str, Any]:
    """Return the table below keys of decoded data; an empty one where there is none."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def tables(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def texts(value: Any) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def word(value: Any) -> str:
    return value if isinstance(value, str) else ""


def line_of(text: str, key: str, section: str = "") -> int | None:
    """Return the line that sets a key, in a section of TOML or INI when one is named; None where none does."""
    inside = not section
    pattern = re.compile(rf"\s*[\"']?{re.escape(key)}[\"']?\s*[=:]")
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[+\s*([^\]]+?)\s*\]+\s*(?:#.*)?$", line):
            inside = not section or header[1].replace('"', "") == section
        elif inside and pattern.match(line):
            return number
    return None
