"""How a Python consumer's lock files resolve a package: uv, Poetry, PDM, Pipenv, pylock and pinned requirements."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from harness.errors import ConfigError
from harness.preflight.project_files import Locked, Override, Resolution, line_of, table, tables, texts, word

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.preflight.project_files import Folder

_TOML_LOCKS = {"uv.lock": "package", "poetry.lock": "package", "pdm.lock": "package", "pylock.toml": "packages"}
#: keys of a dependency that name a place instead of a release
_PLACES = ("git", "path", "url", "file", "workspace", "editable", "directory", "virtual", "vcs", "archive")
#: where a release comes from when it comes from an index
_INDEXES = ("registry", "legacy", "index")


def resolve(consumer: Folder, package: str) -> Resolution:
    """Return what every lock file of the consumer has of the package, and what overrides its choice.

    :raises ConfigError: where a file cannot be read.
    """
    package = canonicalize_name(package)
    locked: list[Locked] = []
    depends: set[str] = set()
    for file, key in _TOML_LOCKS.items():
        if (text := consumer.text(file)) is not None:
            entries = tables(consumer.toml(file).get(key))
            own = [each for each in entries if canonicalize_name(word(each.get("name"))) == package]
            locked += _from_entries(consumer, file, text, package, own)
            depends |= {name for each in own for name in _dependencies(each)}
    locked += _from_pipfile_lock(consumer, package)
    pinned, notes = _from_requirements(consumer, package)
    return Resolution(
        locked=(*locked, *pinned),
        overrides=tuple(_overrides(consumer)),
        depends_on=frozenset(depends),
        notes=tuple(notes),
    )


def _from_entries(consumer: Folder, file: str, text: str, package: str, own: list[dict[str, Any]]) -> Iterator[Locked]:
    if not own:
        yield Locked(at=consumer.at(file), version="", problem=f"it has no package {package}")
    lines = [
        number
        for number, line in enumerate(text.splitlines(), 1)
        if (match := re.match(r'name = "([^"]*)"', line)) and canonicalize_name(match[1]) == package
    ]
    for n, entry in enumerate(own):
        at = consumer.at(file, lines[n] if len(lines) == len(own) else None)
        yield Locked(at=at, version=word(entry.get("version")), problem=_place(entry))


def _place(entry: dict[str, Any]) -> str:
    """Return why a locked package is no release from an index; "" where it is one."""
    source = table(entry, "source")
    if (kind := word(source.get("type"))) and kind not in _INDEXES:
        return f"it comes from {kind} {word(source.get('url'))}".strip()
    found = next((each for each in _PLACES if source.get(each)), "") or next(
        (each for each in _PLACES if entry.get(each)), ""
    )
    return f"it comes from {found} {word(source.get(found)) or word(entry.get(found))}".strip() if found else ""


def _dependencies(entry: dict[str, Any]) -> Iterator[str]:
    listed = entry.get("dependencies")
    names = [word(each.get("name")) for each in tables(listed)]
    names += [name for each in texts(listed) if (name := _name_in(each))]
    names += list(table(listed))
    yield from (canonicalize_name(name) for name in names if name)


def _from_pipfile_lock(consumer: Folder, package: str) -> list[Locked]:
    text = consumer.text("Pipfile.lock")
    if text is None:
        return []
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"it is not JSON: {error}", where=consumer.at("Pipfile.lock")) from None
    found = []
    for group in ("default", "develop"):
        for name, entry in table(data, group).items():
            if canonicalize_name(name) == package and isinstance(entry, dict):
                at = consumer.at("Pipfile.lock", line_of(text, name))
                version = word(entry.get("version"))
                found.append(Locked(at=at, version=version.removeprefix("=="), problem=_place(entry)))
    return found or [Locked(at=consumer.at("Pipfile.lock"), version="", problem=f"it has no package {package}")]


def _from_requirements(consumer: Folder, package: str) -> tuple[list[Locked], list[str]]:
    """Return the pins of requirements files; what names the package without pinning it is a note, and no lock."""
    locked, notes = [], []
    for path in sorted(consumer.path.glob("requirements*.txt")):
        text = consumer.text(path.name) or ""
        for number, line in enumerate(text.splitlines(), 1):
            requirement = _requirement(line)
            at = consumer.at(path.name, number)
            if requirement is None or canonicalize_name(requirement.name) != package:
                if re.match(r"\s*(-e|--editable)\b", line) and _egg(line) == package:
                    locked.append(Locked(at=at, version="", problem="it is installed from a place, editable"))
            elif requirement.url:
                locked.append(Locked(at=at, version="", problem=f"it comes from {requirement.url}"))
            elif pin := re.fullmatch(r"={2,3}([^=*,]+)", str(requirement.specifier)):
                locked.append(Locked(at=at, version=pin[1]))
            else:
                notes.append(f"{at} names it without pinning it")
    return locked, notes


def _requirement(line: str) -> Requirement | None:
    """Read a line of a requirements file, without its hashes, comment and continuation."""
    bare = re.split(r"\s+#|\s+--|\s*\\$", line.strip())[0]
    try:
        return Requirement(bare)
    except InvalidRequirement:
        return None


def _egg(line: str) -> str:
    match = re.search(r"#egg=([\w.-]+)", line)
    return canonicalize_name(match[1]) if match else ""


def _name_in(requirement: str) -> str:
    match = re.match(r"\s*([A-Za-z0-9][\w.-]*)", requirement)
    return match[1] if match else ""


# --- overrides -------------------------------------------------------------------------------------------


def _overrides(consumer: Folder) -> Iterator[Override]:
    """Yield what the consumer's own files say over the resolver's head, of any package."""
    for file, keys in (("pyproject.toml", ("tool", "uv")), ("uv.toml", ())):
        uv = table(consumer.toml(file), *keys)
        for each in texts(uv.get("override-dependencies")):
            yield _override(
                consumer, file, "override-dependencies", _name_in(each), f"override-dependencies has {each}"
            )
        for name, taken_from in table(uv, "sources").items():
            yield from _places_of(consumer, file, name, taken_from)
    for entry in tables(table(consumer.toml("uv.lock"), "manifest").get("overrides")):
        yield _override(consumer, "uv.lock", "overrides", word(entry.get("name")), "it was resolved with an override")
    data = consumer.toml("pyproject.toml")
    poetry = table(data, "tool", "poetry")
    groups = [table(each, "dependencies") for each in table(poetry, "group").values()]
    for dependencies in (table(poetry, "dependencies"), table(poetry, "dev-dependencies"), *groups):
        for name, source in dependencies.items():
            yield from _places_of(consumer, "pyproject.toml", name, source)
    for name in table(data, "tool", "pdm", "resolution", "overrides"):
        yield _override(consumer, "pyproject.toml", name, name, "tool.pdm.resolution.overrides has it")
    yield from _direct(consumer, data)
    pipfile = consumer.toml("Pipfile")
    for group in ("packages", "dev-packages"):
        for name, source in table(pipfile, group).items():
            yield from _places_of(consumer, "Pipfile", name, source)


def _places_of(consumer: Folder, file: str, name: str, source: Any) -> Iterator[Override]:
    for each in [source] if isinstance(source, dict) else tables(source):
        if place := next((key for key in _PLACES if each.get(key)), ""):
            yield _override(consumer, file, name, name, f"it is taken from {place} {word(each.get(place))}".strip())


def _direct(consumer: Folder, data: dict[str, Any]) -> Iterator[Override]:
    """Yield dependencies that name a place themselves: `demo @ file:///src/demo`."""
    project = table(data, "project")
    listed = texts(project.get("dependencies"))
    for group in (*table(project, "optional-dependencies").values(), *table(data, "dependency-groups").values()):
        listed += texts(group)
    for each in listed:
        if (requirement := _requirement(each)) and requirement.url:
            what = f"it is taken from {requirement.url}"
            yield _override(consumer, "pyproject.toml", "dependencies", requirement.name, what)


def _override(consumer: Folder, file: str, key: str, name: str, what: str) -> Override:
    at = consumer.at(file, line_of(consumer.text(file) or "", key))
    return Override(package=canonicalize_name(name), at=at, what=what)
