"""Reads an Elixir library's `mix.exs` and README, and its consumer's `mix.exs` and `mix.lock`, as text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from harness.preflight.elixir_source import (
    attribute_of,
    attributes,
    dependency_tuples,
    line_at,
    literal,
    masked,
    project_key,
)
from harness.preflight.elixir_version import ElixirVersion, admits, is_requirement, parse_version
from harness.preflight.project_files import Constraint, Locked, Manifest, Override, Reading, Resolution

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.preflight.project_files import Folder

_MANIFEST = "mix.exs"
_LOCK = "mix.lock"
_READMES = ("README.md", "readme.md", "Readme.md", "README.livemd")
_OTHER_SOURCES = ("path", "git", "github", "gitlab", "bitbucket", "in_umbrella")
_ATOM = re.compile(r"\s*:(\w+)")


def read_manifest(project: Folder) -> Manifest | None:
    """Return name and version from `def project`; None when the folder has no `mix.exs`.

    :raises ConfigError: when the file cannot be read.
    """
    text = project.text(_MANIFEST)
    if text is None:
        return None
    blank = masked(text)
    app = project_key(text, blank, "app")
    name = _ATOM.match(app[1]) if app else None
    return Manifest(file=_MANIFEST, package=name[1] if name else "", version=_version(project, text, blank))


def _version(project: Folder, text: str, blank: str) -> Reading:
    """Read a version that is a literal, in `def project` or in a module attribute. Anything else is unknown."""
    found = project_key(text, blank, "version")
    if found is None:
        return Reading(at=project.at(_MANIFEST), why="def project has no readable key version:")
    position, value = found
    if (attribute := attribute_of(value)) is not None:
        values = attributes(text, blank, attribute)
        if len(values) != 1:
            at = project.at(_MANIFEST, line_at(text, position))
            return Reading(
                at=at, why=f"@{attribute} is set {len(values)} times, so its value is unknown without executing mix.exs"
            )
        position, value = values[0]
    at = project.at(_MANIFEST, line_at(text, position))
    version = literal(value)
    if version is None:
        return Reading(at=at, why="the version is computed, and mix.exs is not executed")
    return Reading(value=version, at=at)


def parse(version: str) -> ElixirVersion | None:
    """Return a comparable version; None for an invalid one."""
    return parse_version(version)


def documented(project: Folder, package: str, version: str) -> tuple[Constraint, ...]:
    """Return every requirement on the package in the README, each with whether it admits a version.

    Pre-releases follow Hex: a requirement admits one only if it names one.

    :param version: in Elixir's format.
    """
    readme = next((name for name in _READMES if project.text(name) is not None), "")
    text = project.text(readme) or "" if readme else ""
    number = parse_version(version)
    found = []
    for match in re.finditer(rf'\{{\s*:{re.escape(package)}\s*,\s*"([^"\n]*)"', text):
        at = project.at(readme, line_at(text, match.start()))
        if number is None:
            found.append(Constraint(text=match[1], at=at, admits=None, why=f"invalid version {version!r}"))
        elif not is_requirement(match[1]):
            why = f"invalid Mix requirement {match[1]!r}"
            found.append(Constraint(text=match[1], at=at, admits=False, why=why))
        else:
            is_admitted = admits(match[1], number, allow_pre=False)
            why = "" if is_admitted else f"{match[1]} does not admit {version}"
            found.append(Constraint(text=match[1], at=at, admits=is_admitted, why=why))
    return tuple(dict.fromkeys(found))


def resolve(consumer: Folder, package: str) -> Resolution:
    """Return the package's entries in `mix.lock`, and the overrides in `mix.exs`.

    :raises ConfigError: when a file cannot be read.
    """
    text = consumer.text(_LOCK)
    lines = _lock_lines(text or "", package)
    locked = [_locked(consumer, number, line) for number, line in lines]
    if text is not None and not locked:
        locked = [Locked(at=consumer.at(_LOCK), version="", problem=f"missing package {package}")]
    depends = {name for _, line in lines for name in re.findall(r'\{:(\w+), "[^"]*", \[', line)}
    overrides, named = [], False
    for file in (
        _MANIFEST,
        *(f"apps/{manifest.parent.name}/{_MANIFEST}" for manifest in sorted(consumer.path.glob("apps/*/mix.exs"))),
    ):
        for override, name in _overrides(consumer, file):
            named = named or name == package
            overrides += [override] if override else []
    unread = "" if named else f"mix.exs has no readable dependency on {package}, which could hide an override"
    return Resolution(locked=tuple(locked), overrides=tuple(overrides), depends_on=frozenset(depends), unread=unread)


def _lock_lines(text: str, package: str) -> list[tuple[int, str]]:
    start = re.compile(rf'\s*"{re.escape(package)}":\s*\{{')
    return [(number, line) for number, line in enumerate(text.splitlines(), 1) if start.match(line)]


def _locked(consumer: Folder, number: int, line: str) -> Locked:
    at = consumer.at(_LOCK, number)
    if match := re.search(r'\{:hex,\s*:\w+,\s*"([^"]*)"', line):
        return Locked(at=at, version=match[1])
    if match := re.search(r'\{:(\w+),\s*"([^"]*)"', line):
        return Locked(at=at, version="", problem=f"resolved from {match[1]} {match[2]}, not from an index")
    return Locked(at=at, version="", problem="unreadable lock entry")


def _overrides(consumer: Folder, file: str) -> Iterator[tuple[Override | None, str]]:
    """Yield every dependency in a `mix.exs`: its override, or None, and its name."""
    for entry in dependency_tuples(consumer.text(file) or ""):
        source = next((key for key in _OTHER_SOURCES if entry.has_key(key)), "")
        what = "override: true" if entry.is_true("override") else f"resolved with {source}:" if source else ""
        override = Override(package=entry.name, at=consumer.at(file, entry.line), what=what) if what else None
        yield override, entry.name
