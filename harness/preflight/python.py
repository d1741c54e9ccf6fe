"""A Python library's manifest and README, read as text: `pyproject.toml`, `setup.cfg` and `setup.py`."""

from __future__ import annotations

import ast
import configparser
import re
import warnings
from collections import Counter
from typing import Any

from packaging.version import InvalidVersion, Version

from harness.preflight.project_files import Folder, Manifest, Reading, line_of, table, texts, word

#: as hatch finds a version in a file, when it is not told otherwise
_HATCH_VERSION = re.compile(r"^(?:__version__|VERSION)(?: ?: ?str)? ?= ?(['\"])v?(?P<version>.+?)\1", re.MULTILINE)
_AT_BUILD = "the version is found when the package is built, which reading its files does not do"
_FROM_TAGS = ("hatch-vcs", "setuptools-scm", "setuptools_scm", "versioningit", "dunamai", "poetry-dynamic-versioning")


def read_manifest(project: Folder) -> Manifest | None:
    """Return name and version as the project's files have them; None where it is no Python project.

    :raises ConfigError: where a file of it cannot be read.
    """
    return _from_pyproject(project) or _from_setup_cfg(project) or _from_setup_py(project)


def parse(version: str) -> Version | None:
    """Return a version in its order; None where it is none."""
    try:
        return Version(version)
    except InvalidVersion:
        return None


# --- pyproject.toml --------------------------------------------------------------------------------------


def _from_pyproject(project: Folder) -> Manifest | None:
    data = project.toml("pyproject.toml")
    own, poetry = table(data, "project"), table(data, "tool", "poetry")
    name = word(own.get("name")) or word(poetry.get("name"))
    if not name:
        return None
    text = project.text("pyproject.toml") or ""
    if table(data, "tool", "poetry-dynamic-versioning").get("enable"):
        return _manifest(name, _made_from_tags(project, text, "poetry-dynamic-versioning"))
    for section, values in (("project", own), ("tool.poetry", poetry)):
        if version := word(values.get("version")):
            at = project.at("pyproject.toml", line_of(text, "version", section))
            return _manifest(name, Reading(value=version, at=at))
    if "version" in texts(own.get("dynamic")):
        return _manifest(name, _dynamic(project, data, text))
    if other := _from_setup_cfg(project) or _from_setup_py(project):
        return Manifest(file=other.file, package=name, version=other.version)
    at = project.at("pyproject.toml", line_of(text, "name", "project"))
    return _manifest(name, Reading(at=at, why="it has no version, and no file beside it has one"))


def _manifest(name: str, version: Reading) -> Manifest:
    return Manifest(file="pyproject.toml", package=name, version=version)


def _dynamic(project: Folder, data: dict[str, Any], text: str) -> Reading:
    """Read a version that the build finds elsewhere, where that is a file whose text says it for certain."""
    at = project.at("pyproject.toml", line_of(text, "dynamic", "project"))
    requires = texts(table(data, "build-system").get("requires"))
    hatch = table(data, "tool", "hatch", "version")
    scm = next((each for each in _FROM_TAGS if any(_named(each, text) for text in requires)), "")
    if hatch.get("source") == "vcs" or (scm and not hatch.get("path")):
        return _made_from_tags(project, text, scm or "hatch-vcs")
    path = word(hatch.get("path"))
    if path and not {"source", "pattern", "expression", "scheme"} & set(hatch):
        return _matched(project, path, at)
    files = table(data, "tool", "setuptools", "dynamic", "version").get("file")
    names = [files] if isinstance(files, str) else texts(files)
    if len(names) == 1 and (content := project.text(names[0])) is not None and content.strip():
        return Reading(value=content.strip(), at=project.at(names[0], 1))
    return Reading(at=at, why=_AT_BUILD)


def _matched(project: Folder, path: str, at: str) -> Reading:
    text = project.text(path)
    found = list(_HATCH_VERSION.finditer(text or ""))
    if text is None or len(found) != 1:
        return Reading(at=at, why=f"the version is to be found in {path}, which does not say it in exactly one place")
    return Reading(value=found[0]["version"], at=project.at(path, text.count("\n", 0, found[0].start()) + 1))


def _made_from_tags(project: Folder, text: str, by: str) -> Reading:
    at = project.at("pyproject.toml", line_of(text, "dynamic", "project"))
    return Reading(at=at, why=f"the version is made from git tags by {by} when the package is built: no file has it")


def _named(package: str, requirement: str) -> bool:
    return re.match(rf"{re.escape(package)}(?![\w-])", requirement.strip(), re.IGNORECASE) is not None


# --- setup.cfg and setup.py ------------------------------------------------------------------------------


def _from_setup_cfg(project: Folder) -> Manifest | None:
    text = project.text("setup.cfg")
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(text or "")
    except configparser.Error:
        return None
    name = parser.get("metadata", "name", fallback="").strip()
    version = parser.get("metadata", "version", fallback="").strip()
    if text is None or not name:
        return None
    at = project.at("setup.cfg", line_of(text, "version", "metadata"))
    if version.startswith("file:"):
        file = version.removeprefix("file:").strip()
        content = project.text(file)
        if content and content.strip():
            return Manifest(
                file="setup.cfg", package=name, version=Reading(value=content.strip(), at=project.at(file, 1))
            )
    if not version or re.match(r"(attr|file):", version):
        why = _AT_BUILD
        return Manifest(file="setup.cfg", package=name, version=Reading(at=at, why=why))
    return Manifest(file="setup.cfg", package=name, version=Reading(value=version, at=at))


def _from_setup_py(project: Folder) -> Manifest | None:
    text = project.text("setup.py")
    if text is None:
        return None
    tree = _parsed(text)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _calls_setup(node.func)] if tree else []
    keywords = {each.arg: each.value for each in calls[0].keywords} if len(calls) == 1 else {}
    constants = _constants(tree) if tree else {}
    name = _constant(keywords.get("name"), constants)
    if "use_scm_version" in keywords:
        reading = Reading(
            at=project.at("setup.py"), why="the version is made from git tags by setuptools-scm: no file has it"
        )
        return Manifest(file="setup.py", package=name, version=reading)
    version = keywords.get("version")
    value = _constant(version, constants)
    if not value or version is None:
        why = "setup.py computes the version, or is no code that can be read: it is not executed to find out"
        return Manifest(file="setup.py", package=name, version=Reading(at=project.at("setup.py"), why=why))
    return Manifest(
        file="setup.py", package=name, version=Reading(value=value, at=project.at("setup.py", version.lineno))
    )


def _parsed(text: str) -> ast.Module | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of somebody else's escape sequences
        try:
            return ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


def _calls_setup(function: ast.expr) -> bool:
    return (isinstance(function, ast.Name) and function.id == "setup") or (
        isinstance(function, ast.Attribute) and function.attr == "setup"
    )


def _constants(tree: ast.Module) -> dict[str, str]:
    """Return the names that a module sets once, and to a text."""
    stored = Counter(
        each.id for each in ast.walk(tree) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)
    )
    return {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for target in node.targets
        if isinstance(target, ast.Name) and stored[target.id] == 1
    }


def _constant(node: ast.expr | None, constants: dict[str, str]) -> str:
    if isinstance(node, ast.Constant):
        return word(node.value)
    return constants.get(node.id, "") if isinstance(node, ast.Name) else ""
