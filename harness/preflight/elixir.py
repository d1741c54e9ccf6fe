"""An Elixir library's `mix.exs` and README, and its consumer's `mix.exs` and `mix.lock`, read as text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from harness.preflight.elixir_source import (
    attribute_of,
    attributes,
    entries,
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
_PLACES = ("path", "git", "github", "gitlab", "bitbucket", "in_umbrella")
_ATOM = re.compile(r"\s*:(\w+)")


def read_manifest(project: Folder) -> Manifest | None:
    """Return name and version as `def project` has them; None where there is no `mix.exs`.

    :raises ConfigError: where it cannot be read.
    """
    text = project.text(_MANIFEST)
    if text is None:
        return None
    blank = masked(text)
    app = project_key(text, blank, "app")
    name = _ATOM.match(app[1]) if app else None
    return Manifest(file=_MANIFEST, package=name[1] if name else "", version=_version(project, text, blank))


def _version(project: Folder, text: str, blank: str) -> Reading:
    """Read a version that is written down, in place or in a module attribute; nothing else is certain."""
    found = project_key(text, blank, "version")
    if found is None:
        return Reading(at=project.at(_MANIFEST), why="def project gives no version by name that can be read")
    position, value = found
    if (attribute := attribute_of(value)) is not None:
        values = attributes(text, blank, attribute)
        if len(values) != 1:
            at = project.at(_MANIFEST, line_at(text, position))
            return Reading(at=at, why=f"@{attribute} is set {len(values)} times, so what it is cannot be told offline")
        position, value = values[0]
    at = project.at(_MANIFEST, line_at(text, position))
    version = literal(value)
    if version is None:
        return Reading(at=at, why="the version is computed, and mix.exs is not executed to find out")
    return Reading(value=version, at=at)


def parse(version: str) -> ElixirVersion | None:
    """Return a version in its order; None where it is none."""
    return parse_version(version)


def documented(project: Folder, package: str, version: str) -> tuple[Constraint, ...]:
    """Return every requirement on the package in the README, and whether it admits a version.

    Pre-releases are treated as Hex does: a requirement takes one only where it names one.

    :param version: as Elixir writes it.
    """
    readme = next((name for name in _READMES if project.text(name) is not None), "")
    text = project.text(readme) or "" if readme else ""
    number = parse_version(version)
    found = []
    for match in re.finditer(rf'\{{\s*:{re.escape(package)}\s*,\s*"([^"\n]*)"', text):
        at = project.at(readme, line_at(text, match.start()))
        if number is None:
            found.append(Constraint(text=match[1], at=at, admits=None, why=f"{version!r} is no version"))
        elif not is_requirement(match[1]):
            why = f"{match[1]!r} is no requirement that Mix accepts"
            found.append(Constraint(text=match[1], at=at, admits=False, why=why))
        else:
            fits = admits(match[1], number, allow_pre=False)
            why = "" if fits else f"{match[1]} does not admit {version}"
            found.append(Constraint(text=match[1], at=at, admits=fits, why=why))
    return tuple(dict.fromkeys(found))


def resolve(consumer: Folder, package: str) -> Resolution:
    """Return what `mix.lock` has of the package, and what `mix.exs` overrides.

    :raises ConfigError: where a file cannot be read.
    """
    text = consumer.text(_LOCK)
    lines = _lock_lines(text or "", package)
    locked = [_locked(consumer, number, line) for number, line in lines]
    if text is not None and not locked:
        locked = [Locked(at=consumer.at(_LOCK), version="", problem=f"it has no package {package}")]
    depends = {name for _, line in lines for name in re.findall(r'\{:(\w+), "[^"]*", \[', line)}
    overrides, named = [], False
    for file in (
        _MANIFEST,
        *(f"apps/{each.parent.name}/{_MANIFEST}" for each in sorted(consumer.path.glob("apps/*/mix.exs"))),
    ):
        for override, name in _overrides(consumer, file):
            named = named or name == package
            overrides += [override] if override else []
    unread = "" if named else f"mix.exs names {package} nowhere that can be read, so an override of it may be hidden"
    return Resolution(locked=tuple(locked), overrides=tuple(overrides), depends_on=frozenset(depends), unread=unread)


def _lock_lines(text: str, package: str) -> list[tuple[int, str]]:
    start = re.compile(rf'\s*"{re.escape(package)}":\s*\{{')
    return [(number, line) for number, line in enumerate(text.splitlines(), 1) if start.match(line)]


def _locked(consumer: Folder, number: int, line: str) -> Locked:
    at = consumer.at(_LOCK, number)
    if match := re.search(r'\{:hex,\s*:\w+,\s*"([^"]*)"', line):
        return Locked(at=at, version=match[1])
    if match := re.search(r'\{:(\w+),\s*"([^"]*)"', line):
        return Locked(at=at, version="", problem=f"it comes from {match[1]} {match[2]}")
    return Locked(at=at, version="", problem="its entry cannot be read")


def _overrides(consumer: Folder, file: str) -> Iterator[tuple[Override | None, str]]:
    """Yield every dependency of a mix.exs by name, with what overrides it if anything does."""
    for entry in entries(consumer.text(file) or ""):
        place = next((key for key in _PLACES if entry.has_key(key)), "")
        what = "override: true" if entry.says_true("override") else f"it is taken by {place}:" if place else ""
        made = Override(package=entry.name, at=consumer.at(file, entry.line), what=what) if what else None
        yield made, entry.name
