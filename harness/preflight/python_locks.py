"""Reads a package from a Python consumer's lock files: uv, Poetry, PDM, Pipenv, pylock and pinned requirements."""

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
#: keys of a dependency that name another source than an index
_OTHER_SOURCES = ("git", "path", "url", "file", "workspace", "editable", "directory", "virtual", "vcs", "archive")
#: source types that are an index
_INDEXES = ("registry", "legacy", "index")


def resolve(consumer: Folder, package: str) -> Resolution:
    """Return the package's entries in all lock files of the consumer, and the consumer's overrides.

    :raises ConfigError: when a file cannot be read.
    """
    package = canonicalize_name(package)
    locked: list[Locked] = []
    depends: set[str] = set()
    for file, key in _TOML_LOCKS.items():
        if (text := consumer.text(file)) is not None:
            entries = tables(consumer.toml(file).get(key))
            own = [entry for entry in entries if canonicalize_name(word(entry.get("name"))) == package]
            locked += _from_entries(consumer, file, text, package, own)
            depends |= {name for entry in own for name in _dependencies(entry)}
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
        yield Locked(at=consumer.at(file), version="", problem=f"missing package {package}")
    lines = [
        number
        for number, line in enumerate(text.splitlines(), 1)
        if (match := re.match(r'name = "([^"]*)"', line)) and canonicalize_name(match[1]) == package
    ]
    for number, entry in enumerate(own):
        at = consumer.at(file, lines[number] if len(lines) == len(own) else None)
        yield Locked(at=at, version=word(entry.get("version")), problem=_source_problem(entry))


def _source_problem(entry: dict[str, Any]) -> str:
    """Return why a locked package is not a release from an index; "" when it is one."""
    source = table(entry, "source")
    if (kind := word(source.get("type"))) and kind not in _INDEXES:
        return f"resolved from {kind} {word(source.get('url'))}".strip()
    key = next((key for key in _OTHER_SOURCES if source.get(key)), "") or next(
        (key for key in _OTHER_SOURCES if entry.get(key)), ""
    )
    return f"resolved from {key} {word(source.get(key)) or word(entry.get(key))}".strip() if key else ""


def _dependencies(entry: dict[str, Any]) -> Iterator[str]:
    listed = entry.get("dependencies")
    names = [word(dependency.get("name")) for dependency in tables(listed)]
    names += [name for requirement in texts(listed) if (name := _name_in(requirement))]
    names += list(table(listed))
    yield from (canonicalize_name(name) for name in names if name)


def _from_pipfile_lock(consumer: Folder, package: str) -> list[Locked]:
    text = consumer.text("Pipfile.lock")
    if text is None:
        return []
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"invalid JSON: {error}", where=consumer.at("Pipfile.lock")) from None
    found = []
    for group in ("default", "develop"):
        for name, entry in table(data, group).items():
            if canonicalize_name(name) == package and isinstance(entry, dict):
                at = consumer.at("Pipfile.lock", line_of(text, name))
                version = word(entry.get("version"))
                found.append(Locked(at=at, version=version.removeprefix("=="), problem=_source_problem(entry)))
    return found or [Locked(at=consumer.at("Pipfile.lock"), version="", problem=f"missing package {package}")]


def _from_requirements(consumer: Folder, package: str) -> tuple[list[Locked], list[str]]:
    """Return the pinned entries of requirements files, and a note for each line that does not pin the package."""
    locked, notes = [], []
    for path in sorted(consumer.path.glob("requirements*.txt")):
        text = consumer.text(path.name) or ""
        for number, line in enumerate(text.splitlines(), 1):
            requirement = _requirement(line)
            at = consumer.at(path.name, number)
            if requirement is None or canonicalize_name(requirement.name) != package:
                if re.match(r"\s*(-e|--editable)\b", line) and _egg(line) == package:
                    locked.append(Locked(at=at, version="", problem="editable install, not a release"))
            elif requirement.url:
                locked.append(Locked(at=at, version="", problem=f"resolved from {requirement.url}, not from an index"))
            elif pin := re.fullmatch(r"={2,3}([^=*,]+)", str(requirement.specifier)):
                locked.append(Locked(at=at, version=pin[1]))
            else:
                notes.append(f"{at} names {package} without pinning it")
    return locked, notes


def _requirement(line: str) -> Requirement | None:
    """Parse a line of a requirements file, without hashes, comment and continuation."""
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
    """Yield the overrides of any package in the consumer's own files."""
    for file, keys in (("pyproject.toml", ("tool", "uv")), ("uv.toml", ())):
        uv = table(consumer.toml(file), *keys)
        for requirement in texts(uv.get("override-dependencies")):
            what = f"override-dependencies has {requirement}"
            yield _override(consumer, file, "override-dependencies", _name_in(requirement), what)
        for name, source in table(uv, "sources").items():
            yield from _other_sources(consumer, file, name, source)
    for entry in tables(table(consumer.toml("uv.lock"), "manifest").get("overrides")):
        yield _override(consumer, "uv.lock", "overrides", word(entry.get("name")), "resolved with an override")
    data = consumer.toml("pyproject.toml")
    poetry = table(data, "tool", "poetry")
    groups = [table(group, "dependencies") for group in table(poetry, "group").values()]
    for dependencies in (table(poetry, "dependencies"), table(poetry, "dev-dependencies"), *groups):
        for name, source in dependencies.items():
            yield from _other_sources(consumer, "pyproject.toml", name, source)
    for name in table(data, "tool", "pdm", "resolution", "overrides"):
        yield _override(consumer, "pyproject.toml", name, name, "listed in tool.pdm.resolution.overrides")
    yield from _direct(consumer, data)
    pipfile = consumer.toml("Pipfile")
    for group in ("packages", "dev-packages"):
        for name, source in table(pipfile, group).items():
            yield from _other_sources(consumer, "Pipfile", name, source)


def _other_sources(consumer: Folder, file: str, name: str, declared: Any) -> Iterator[Override]:
    """Yield an override for each declared source that is not an index."""
    for source in [declared] if isinstance(declared, dict) else tables(declared):
        if key := next((key for key in _OTHER_SOURCES if source.get(key)), ""):
            yield _override(consumer, file, name, name, f"resolved from {key} {word(source.get(key))}".strip())


def _direct(consumer: Folder, data: dict[str, Any]) -> Iterator[Override]:
    """Yield direct references, such as `demo @ file:///src/demo`."""
    project = table(data, "project")
    listed = texts(project.get("dependencies"))
    for group in (*table(project, "optional-dependencies").values(), *table(data, "dependency-groups").values()):
        listed += texts(group)
    for line in listed:
        if (requirement := _requirement(line)) and requirement.url:
            what = f"resolved from {requirement.url}"
            yield _override(consumer, "pyproject.toml", "dependencies", requirement.name, what)


def _override(consumer: Folder, file: str, key: str, name: str, what: str) -> Override:
    at = consumer.at(file, line_of(consumer.text(file) or "", key))
    return Override(package=canonicalize_name(name), at=at, what=what)
