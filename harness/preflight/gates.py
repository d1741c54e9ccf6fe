"""The distribution preflight: does what a project says of its release agree with itself? Offline, from files and tags.

Four questions, one row each. What a file does not say for certain is Not run, never a guess.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta, Struct

from harness.errors import ConfigError
from harness.model import Status
from harness.preflight import elixir, python, python_locks, python_readme
from harness.preflight.project_files import Constraint, Folder, Manifest, Resolution
from harness.preflight.release_tags import command_of, read_tags, releases

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_Folder = Annotated[str, Meta(pattern=r"^[^\r\n\x00]*$", max_length=300)]

MANIFEST = "version in the manifest"
TAG = "newest tag equals the version in the manifest"
README = "constraint in the README admits it"
LOCK = "lock file of a consumer resolves exactly it, without overrides"

_NO_VERSION = "the version in the manifest is not known, so there is nothing to compare with"
_NO_PACKAGE = "the manifest does not tell the library's name, and none is declared"
_FEW = 5


class PreflightDeclaration(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which library is looked at; folders are told from the project's own."""

    #: of the library
    project: _Folder = "."
    #: whose lock file resolves the library; none when empty
    consumer: _Folder = ""
    #: what README and lock file call the library; the manifest's name when empty
    package: Annotated[str, Meta(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*)?$")] = ""


class PreflightRow(Struct, frozen=True, kw_only=True):
    """One row of the table."""

    item: str
    status: Status
    #: the file and line that show it, or the command that does
    evidence: str
    notes: str


class _Language(Struct, frozen=True, kw_only=True):
    """How projects of a language are read."""

    name: str
    #: what a version is written as
    versions: str
    read_manifest: Callable[[Folder], Manifest | None]
    #: a version in its order; None for what is none
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
    """The library as its manifest describes it."""

    language: _Language
    folder: Folder
    manifest: Manifest
    #: "" where neither manifest nor declaration tells it
    package: str
    #: "" where it is not known
    version: str


def preflight(declared: PreflightDeclaration, root: Path) -> tuple[PreflightRow, ...]:
    """Fill the table: four rows, whatever is found. Nothing of the project is executed.

    :param root: the folder that the declaration's folders are told from.
    :raises ConfigError: where a declared folder is not there, or is no project of Python or Elixir, or of both.
    """
    folder = _folder(declared.project, root, "project")
    consumer = _folder(declared.consumer, root, "consumer") if declared.consumer else None
    try:
        library = _library(folder, declared.package)
    except _UnreadableManifestError as error:
        broken = _row(MANIFEST, Status.ISSUE, error.where, error.what)
        return (broken, *(_row(item, Status.NOT_RUN, "", _NO_VERSION) for item in (TAG, README, LOCK)))
    return (_manifest_row(library), _tag_row(library), _readme_row(library), _lock_row(library, consumer))


class _UnreadableManifestError(ConfigError):
    """A manifest is there, and is not what it should be: an Issue of the project."""


def _folder(name: str, root: Path, key: str) -> Folder:
    path = root / name
    if not path.is_dir():
        raise ConfigError(f"{key}: there is no folder {name!r}", where=str(root), hint="a path from this folder")
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
    named = [each for each in found if declared and _same_for_all(each[1].package) == _same_for_all(declared)]
    chosen = named or found
    if not chosen:
        raise ConfigError(
            "it is no project of Python or Elixir: a named pyproject.toml, setup.cfg, setup.py or mix.exs is needed",
            where=str(folder.path),
        )
    if len(chosen) > 1:
        files = " and ".join(manifest.file for _, manifest in chosen)
        raise ConfigError(
            f"it has manifests of several languages, {files}, and which is the library's is not told",
            where=str(folder.path),
            hint="declare package: the name that one of them has",
        )
    language, manifest = chosen[0]
    version = manifest.version.value if language.parse(manifest.version.value) is not None else ""
    return _Library(
        language=language, folder=folder, manifest=manifest, package=declared or manifest.package, version=version
    )


def _row(item: str, status: Status, evidence: str, notes: str) -> PreflightRow:
    return PreflightRow(item=item, status=status, evidence=evidence, notes=notes)


# --- the rows --------------------------------------------------------------------------------------------


def _manifest_row(library: _Library) -> PreflightRow:
    read = library.manifest.version
    if not read.value:
        return _row(MANIFEST, Status.NOT_RUN, read.at, read.why)
    if not library.version:
        return _row(MANIFEST, Status.ISSUE, read.at, f"{read.value!r} is no version of {library.language.versions}")
    return _row(MANIFEST, Status.OK, read.at, f"{library.package or 'the library'} {read.value}")


def _tag_row(library: _Library) -> PreflightRow:
    command = command_of(library.folder)
    if not library.version:
        return _row(TAG, Status.NOT_RUN, "", _NO_VERSION)
    tags = read_tags(library.folder, library.manifest.file)
    if tags.why:
        return _row(TAG, Status.NOT_RUN, command, tags.why)
    found = releases(tags.names, library.package, library.language.parse)
    if not found:
        why = "no tag names a version: nothing was released from this repository, or its tags were not fetched"
        return _row(TAG, Status.NOT_RUN, command, why)
    newest, version = found[-1], library.language.parse(library.version)
    if newest.version == version:
        return _row(TAG, Status.OK, command, f"the newest of {len(found)} is {newest.tag}")
    tagged = next((each.tag for each in found if each.version == version), "")
    ahead = "not tagged yet" if version > newest.version else "behind the newest"
    told = f"it has a tag, {tagged}" if tagged else "no tag has it"
    notes = f"the manifest is at {library.version}, which is {ahead}: the newest tag is {newest.tag}, and {told}"
    return _row(TAG, Status.ISSUE, command, notes)


def _readme_row(library: _Library) -> PreflightRow:
    if not library.version or not library.package:
        return _row(README, Status.NOT_RUN, "", _NO_PACKAGE if library.version else _NO_VERSION)
    try:
        found = library.language.documented(library.folder, library.package, library.version)
    except ConfigError as error:
        return _row(README, Status.ISSUE, error.where, error.what)
    if not found:
        return _row(README, Status.NOT_RUN, "", f"no README documents a constraint on {library.package}")
    for status, wrong in (
        (Status.ISSUE, [each for each in found if each.admits is False]),
        (Status.NOT_RUN, [each for each in found if each.admits is None]),
    ):
        if wrong:
            why = "; ".join(_distinct([each.why for each in wrong]))
            return _row(README, status, _places([each.at for each in wrong]), why)
    told = ", ".join(_distinct([each.text or "any version" for each in found]))
    return _row(README, Status.OK, _places([each.at for each in found]), f"{told} admits {library.version}")


def _lock_row(library: _Library, consumer: Folder | None) -> PreflightRow:
    if consumer is None:
        why = "no consumer is declared whose lock file could show what a release resolves to"
        return _row(LOCK, Status.NOT_RUN, "", why)
    if not library.package:
        return _row(LOCK, Status.NOT_RUN, "", _NO_PACKAGE)
    try:
        found = library.language.resolve(consumer, library.package)
    except ConfigError as error:
        return _row(LOCK, Status.ISSUE, error.where, error.what)
    return _resolution_row(library, consumer, found)


def _resolution_row(library: _Library, consumer: Folder, found: Resolution) -> PreflightRow:
    wrong = _wrong(library, found)
    if wrong:
        why = "; ".join(_distinct([why for _, why in wrong]))
        return _row(LOCK, Status.ISSUE, _places([at for at, _ in wrong]), why)
    at = _places([each.at for each in found.locked])
    notes = "; ".join(found.notes)
    if not found.locked:
        why = f"{consumer.at('')} has no lock file that resolves {library.package}"
        return _row(LOCK, Status.NOT_RUN, "", f"{why}; {notes}" if notes else why)
    if not library.version:
        return _row(LOCK, Status.NOT_RUN, at, _NO_VERSION)
    if found.unread:
        return _row(LOCK, Status.NOT_RUN, at, found.unread)
    others = [f"{each.package} ({each.at})" for each in found.overrides]
    told = [f"{library.package} {library.version}", *found.notes]
    if others:
        told.append(f"overridden, and nothing that the lock says it depends on: {', '.join(_distinct(others))}")
    return _row(LOCK, Status.OK, at, "; ".join(told))


def _wrong(library: _Library, found: Resolution) -> list[tuple[str, str]]:
    """Return place and reason of everything that keeps a lock from resolving the release by itself."""
    expected = library.language.parse(library.version)
    wrong = [(each.at, each.problem) for each in found.locked if each.problem]
    for each in found.locked:
        if not each.problem and not each.version:
            wrong.append((each.at, "it names no version"))
        elif not each.problem and expected is not None and library.language.parse(each.version) != expected:
            wrong.append((each.at, f"it has {each.version}, and the manifest {library.version}"))
    own = {_same_for_all(name) for name in (library.package, *found.depends_on)}
    wrong += [
        (each.at, f"{each.package}: {each.what}") for each in found.overrides if _same_for_all(each.package) in own
    ]
    return wrong


def _same_for_all(name: str) -> str:
    """Return a package's name so that all its spellings are one."""
    return re.sub(r"[-_.]+", "-", name.lower())


def _places(places: Sequence[str]) -> str:
    distinct = list(dict.fromkeys(places))
    more = f", and {len(distinct) - _FEW} more" if len(distinct) > _FEW else ""
    return ", ".join(distinct[:_FEW]) + more


def _distinct(values: Sequence[str]) -> list[str]:
    distinct = list(dict.fromkeys(values))
    return distinct if len(distinct) <= _FEW else [*distinct[:_FEW], f"and {len(distinct) - _FEW} more"]
