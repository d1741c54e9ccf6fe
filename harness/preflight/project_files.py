"""Files of a library and of its consumer, read as text, and the facts that gates compare."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any

from msgspec import Struct

from harness.errors import ConfigError

#: largest file; the lock file of a large application has a few megabytes
LARGEST_BYTES = 20 * 1024 * 1024


class Folder(Struct, frozen=True, kw_only=True):
    """A declared folder."""

    path: Path
    #: evidence names files relative to this folder
    root: Path

    def text(self, name: str) -> str | None:
        """Return the text of a file; None when it does not exist, or is outside of the folder.

        :raises ConfigError: when the file cannot be read as text, or is larger than 20 MB.
        """
        path = self.path / name
        try:
            if ".." in Path(name).parts or Path(name).is_absolute() or not path.is_file():
                return None
            if path.stat().st_size > LARGEST_BYTES:
                raise ConfigError(f"the file is larger than {LARGEST_BYTES // 1024 // 1024} MB", where=self.at(name))
            return path.read_text(encoding="utf-8-sig")
        except (OSError, ValueError) as error:
            raise ConfigError(f"the file cannot be read as text: {error}", where=self.at(name)) from None

    def at(self, name: str, line: int | None = None) -> str:
        """Return a location for evidence, such as `lib/pyproject.toml:3`."""
        relative = Path(os.path.relpath(self.path / name, self.root)).as_posix()
        return f"{relative}:{line}" if line else relative

    def toml(self, name: str) -> dict[str, Any]:
        """Return the data of a TOML file; an empty table when the file does not exist.

        :raises ConfigError: when the file is not valid TOML.
        """
        text = self.text(name)
        try:
            return tomllib.loads(text) if text is not None else {}
        except (ValueError, RecursionError) as error:  # also for digits without end
            raise ConfigError(f"invalid TOML: {error}", where=self.at(name)) from None


class Reading(Struct, frozen=True, kw_only=True):
    """A value from a file, or the reason why it is unknown."""

    value: str = ""
    #: the file and line
    at: str = ""
    #: why the value is unknown; "" when it is known
    why: str = ""


class Manifest(Struct, frozen=True, kw_only=True):
    """Name and version of a project."""

    #: file name of the manifest
    file: str
    package: str
    version: Reading


class Constraint(Struct, frozen=True, kw_only=True):
    """A version constraint that a README documents for its readers."""

    text: str
    at: str
    #: whether it admits the version; None when it cannot be parsed
    admits: bool | None
    #: why it does not admit the version, or cannot be parsed
    why: str = ""


class Locked(Struct, frozen=True, kw_only=True):
    """The entry of the package in one lock file."""

    at: str
    #: "" when the lock file has no version of the package
    version: str
    #: why this entry is not a resolved release; "" when it is one
    problem: str = ""


class Override(Struct, frozen=True, kw_only=True):
    """A setting that makes a resolver use another source or version of a package."""

    package: str
    at: str
    what: str


class Resolution(Struct, frozen=True, kw_only=True):
    """The entries and overrides of a package in the files of a consumer."""

    locked: tuple[Locked, ...] = ()
    overrides: tuple[Override, ...] = ()
    #: direct dependencies of the package, from the lock file
    depends_on: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    #: why an override could be hidden; "" when all overrides are known
    unread: str = ""


def table(value: Any, *keys: str) -> dict[str, Any]:
    """Return the nested table at a path of keys; an empty table when it is missing."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def tables(value: Any) -> list[dict[str, Any]]:
    """Return the tables in a list; other items, and anything but a list, are ignored."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def texts(value: Any) -> list[str]:
    """Return the texts in a list; other items, and anything but a list, are ignored."""
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def word(value: Any) -> str:
    """Return a text; "" for any other value."""
    return value if isinstance(value, str) else ""


def line_of(text: str, key: str, section: str = "") -> int | None:
    """Return the number of the line that sets a key; None without one.

    :param section: of TOML or INI; the whole file by default.
    """
    inside = not section
    pattern = re.compile(rf"\s*[\"']?{re.escape(key)}[\"']?\s*[=:]")
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[+\s*([^\]]+?)\s*\]+\s*(?:#.*)?$", line):
            inside = not section or header[1].replace('"', "") == section
        elif inside and pattern.match(line):
            return number
    return None
