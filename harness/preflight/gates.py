"""The distribution preflight: four gates that compare a library's files and git tags with each other, offline.

A gate is one statement about the release that must be true before the library is distributed, for example "newest tag
equals the version in the manifest". Its result is one row of the table. If no file states a fact with certainty, the
gate is Not run: gates never guess, and never execute code of the project.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from harness.errors import ConfigError
from harness.model import Status
from harness.preflight import elixir, python, python_locks, python_readme
from harness.preflight.declaration import GateResult
from harness.preflight.project_files import Constraint, Folder, Manifest, Resolution
from harness.preflight.release_tags import command_of, read_tags, releases

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from harness.preflight.declaration import PreflightDeclaration

#: the gates, in the order of the table
MANIFEST = "version in the manifest"
TAG = "newest tag equals the version in the manifest"
README = "constraint in the README admits it"
LOCK = "lock file of a consumer resolves exactly it, without overrides"

_NO_VERSION = "the version in the manifest is unknown, so there is nothing to compare"
_NO_PACKAGE = "the manifest has no readable name, and no package is declared"
_FEW = 5


class _Language(Struct, frozen=True, kw_only=True):
    """The readers for projects of one language."""

    name: str
    #: name of the version format
    versions: str
    read_manifest: Callable[[Folder], Manifest | None]
    #: returns a comparable version; None for an invalid one
    parse: Callable[[str], Any]
    documented: Callable[[Folder, str, str], tuple[Constraint, ...]]
    resolve: Callable[[Folder, str], Resolution]


_LANGUAGES = (
    _Language(
        name="Python",
        versions="PEP 440",
        read_manifest=python.read_manifest,
        parse=python.parse,
        documented=python_readme.documented,
        resolve=python_locks.resolve,
    ),
    _Language(
        name="Elixir",
        versions="Elixir's Version",
        read_manifest=elixir.read_manifest,
        parse=elixir.parse,
        documented=elixir.documented,
        resolve=elixir.resolve,
    ),
)


class _Library(Struct, frozen=True, kw_only=True):
    """The library under test, from its manifest."""

    language: _Language
    folder: Folder
    manifest: Manifest
    #: "" when neither manifest nor declaration names it
    package: str
    #: "" when it is unknown or invalid
    version: str


def preflight(declared: PreflightDeclaration, root: Path) -> tuple[GateResult, ...]:
    """Evaluate the four gates, in the order of the table.

    :param root: the declared folders are relative to it.
    :raises ConfigError: when a declared folder does not exist, is not a Python or Elixir project, or is both.
    """
    folder = _folder(declared.project, root, "project")
    consumer = _folder(declared.consumer, root, "consumer") if declared.consumer else None
    try:
        library = _library(folder, declared.package)
    except _UnreadableManifestError as error:
        broken = _result(MANIFEST, Status.ISSUE, error.where, error.what)
        return (broken, *(_result(gate, Status.NOT_RUN, "", _NO_VERSION) for gate in (TAG, README, LOCK)))
    return (_manifest_gate(library), _tag_gate(library), _readme_gate(library), _lock_gate(library, consumer))


class _UnreadableManifestError(ConfigError):
    """The manifest exists, but is invalid: an Issue of the project, not of the declaration."""


def _folder(name: str, root: Path, key: str) -> Folder:
    path = root / name
    if not path.is_dir():
        raise ConfigError(
            f"{key}: folder {name!r} does not exist", where=str(root), hint="use a path relative to this folder"
        )
    return Folder(path=path, root=root)


def _library(folder: Folder, declared: str) -> _Library:
    found = []
    for language in _LANGUAGES:
        try:
            manifest = language.read_manifest(folder)
        except ConfigError as error:
            raise _UnreadableManifestError(error.what, where=error.where) from None
        if manifest is not None:
            found.append((language, manifest))
    named = [
        (language, manifest)
        for language, manifest in found
        if declared and _normalised(manifest.package) == _normalised(declared)
    ]
    chosen = named or found
    if not chosen:
        raise ConfigError(
            "found no Python or Elixir project, expected pyproject.toml, setup.cfg or setup.py with a name, or mix.exs",
            where=str(folder.path),
        )
    if len(chosen) > 1:
        files = " and ".join(manifest.file for _, manifest in chosen)
        raise ConfigError(
            f"found manifests of several languages, {files}, expected one",
            where=str(folder.path),
            hint="set package to the name in one of them",
        )
    language, manifest = chosen[0]
    version = manifest.version.value if language.parse(manifest.version.value) is not None else ""
    return _Library(
        language=language, folder=folder, manifest=manifest, package=declared or manifest.package, version=version
    )


def _result(gate: str, status: Status, evidence: str, notes: str) -> GateResult:
    return GateResult(item=gate, status=status, evidence=evidence, notes=notes)


# --- the gates -------------------------------------------------------------------------------------------


def _manifest_gate(library: _Library) -> GateResult:
    reading = library.manifest.version
    if not reading.value:
        return _result(MANIFEST, Status.NOT_RUN, reading.at, reading.why)
    if not library.version:
        why = f"invalid version {reading.value!r}, expected the format of {library.language.versions}"
        return _result(MANIFEST, Status.ISSUE, reading.at, why)
    return _result(MANIFEST, Status.OK, reading.at, f"{library.package or 'the library'} {reading.value}")


def _tag_gate(library: _Library) -> GateResult:
    command = command_of(library.folder)
    if not library.version:
        return _result(TAG, Status.NOT_RUN, "", _NO_VERSION)
    tags = read_tags(library.folder, library.manifest.file)
    if tags.why:
        return _result(TAG, Status.NOT_RUN, command, tags.why)
    tagged = releases(tags.names, library.package, library.language.parse)
    if not tagged:
        why = "no tag names a version: the repository has no release, or its tags were not fetched"
        return _result(TAG, Status.NOT_RUN, command, why)
    newest, version = tagged[-1], library.language.parse(library.version)
    if newest.version == version:
        return _result(TAG, Status.OK, command, f"the newest of {len(tagged)} is {newest.tag}")
    own = next((release.tag for release in tagged if release.version == version), "")
    position = "not tagged yet" if version > newest.version else "older than the newest tag"
    own_tag = f"its tag is {own}" if own else "no tag names it"
    notes = f"the manifest has {library.version}, which is {position}: the newest tag is {newest.tag}, and {own_tag}"
    return _result(TAG, Status.ISSUE, command, notes)


def _readme_gate(library: _Library) -> GateResult:
    if not library.version or not library.package:
        return _result(README, Status.NOT_RUN, "", _NO_PACKAGE if library.version else _NO_VERSION)
    try:
        constraints = library.language.documented(library.folder, library.package, library.version)
    except ConfigError as error:
        return _result(README, Status.ISSUE, error.where, error.what)
    if not constraints:
        return _result(README, Status.NOT_RUN, "", f"no README documents a constraint on {library.package}")
    for status, wrong in (
        (Status.ISSUE, [constraint for constraint in constraints if constraint.admits is False]),
        (Status.NOT_RUN, [constraint for constraint in constraints if constraint.admits is None]),
    ):
        if wrong:
            why = "; ".join(_distinct([constraint.why for constraint in wrong]))
            return _result(README, status, _locations([constraint.at for constraint in wrong]), why)
    texts = ", ".join(_distinct([constraint.text or "any version" for constraint in constraints]))
    evidence = _locations([constraint.at for constraint in constraints])
    return _result(README, Status.OK, evidence, f"{texts} admits {library.version}")


def _lock_gate(library: _Library, consumer: Folder | None) -> GateResult:
    if consumer is None:
        why = "no consumer is declared, so no lock file shows how a release resolves"
        return _result(LOCK, Status.NOT_RUN, "", why)
    if not library.package:
        return _result(LOCK, Status.NOT_RUN, "", _NO_PACKAGE)
    try:
        resolution = library.language.resolve(consumer, library.package)
    except ConfigError as error:
        return _result(LOCK, Status.ISSUE, error.where, error.what)
    return _resolution_result(library, consumer, resolution)


def _resolution_result(library: _Library, consumer: Folder, resolution: Resolution) -> GateResult:
    problems = _problems(library, resolution)
    if problems:
        why = "; ".join(_distinct([why for _, why in problems]))
        return _result(LOCK, Status.ISSUE, _locations([at for at, _ in problems]), why)
    at = _locations([locked.at for locked in resolution.locked])
    notes = "; ".join(resolution.notes)
    if not resolution.locked:
        why = f"{consumer.at('')} has no lock file that resolves {library.package}"
        return _result(LOCK, Status.NOT_RUN, "", f"{why}; {notes}" if notes else why)
    if not library.version:
        return _result(LOCK, Status.NOT_RUN, at, _NO_VERSION)
    if resolution.unread:
        return _result(LOCK, Status.NOT_RUN, at, resolution.unread)
    sentences = [f"{library.package} {library.version}", *resolution.notes]
    if unrelated := [f"{override.package} ({override.at})" for override in resolution.overrides]:
        sentences.append(
            f"overrides of packages that are not its direct dependencies: {', '.join(_distinct(unrelated))}"
        )
    return _result(LOCK, Status.OK, at, "; ".join(sentences))


def _problems(library: _Library, resolution: Resolution) -> list[tuple[str, str]]:
    """Return location and reason of everything that prevents a lock file from resolving exactly the release."""
    expected = library.language.parse(library.version)
    problems = [(locked.at, locked.problem) for locked in resolution.locked if locked.problem]
    for locked in resolution.locked:
        if not locked.problem and not locked.version:
            problems.append((locked.at, "missing version"))
        elif not locked.problem and expected is not None and library.language.parse(locked.version) != expected:
            problems.append((locked.at, f"found {locked.version}, expected {library.version} as in the manifest"))
    own = {_normalised(name) for name in (library.package, *resolution.depends_on)}
    problems += [
        (override.at, f"{override.package}: {override.what}")
        for override in resolution.overrides
        if _normalised(override.package) in own
    ]
    return problems


def _normalised(name: str) -> str:
    """Return a package name in a form that is equal for all its spellings."""
    return re.sub(r"[-_.]+", "-", name.lower())


def _locations(locations: Sequence[str]) -> str:
    distinct = list(dict.fromkeys(locations))
    more = f", and {len(distinct) - _FEW} more" if len(distinct) > _FEW else ""
    return ", ".join(distinct[:_FEW]) + more


def _distinct(values: Sequence[str]) -> list[str]:
    distinct = list(dict.fromkeys(values))
    return distinct if len(distinct) <= _FEW else [*distinct[:_FEW], f"and {len(distinct) - _FEW} more"]
