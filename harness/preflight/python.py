"""Reads a Python library's manifest as text: `pyproject.toml`, `setup.cfg` or `setup.py`."""

from __future__ import annotations

import ast
import configparser
import re
import warnings
from collections import Counter
from typing import Any

from packaging.version import InvalidVersion, Version

from harness.preflight.project_files import Folder, Manifest, Reading, line_of, table, texts, word

#: hatch's default pattern for a version in a file
_HATCH_VERSION = re.compile(r"^(?:__version__|VERSION)(?: ?: ?str)? ?= ?(['\"])v?(?P<version>.+?)\1", re.MULTILINE)
_AT_BUILD = "the build computes the version, and the package is not built"
_TAG_TOOLS = ("hatch-vcs", "setuptools-scm", "setuptools_scm", "versioningit", "dunamai", "poetry-dynamic-versioning")


def read_manifest(project: Folder) -> Manifest | None:
    """Return name and version; None when the folder is not a Python project.

    :raises ConfigError: when a file cannot be read.
    """
    return _from_pyproject(project) or _from_setup_cfg(project) or _from_setup_py(project)


def parse(version: str) -> Version | None:
    """Return a comparable version; None for an invalid one."""
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
        return _manifest(name, _from_tags(project, text, "poetry-dynamic-versioning"))
    for section, values in (("project", own), ("tool.poetry", poetry)):
        if version := word(values.get("version")):
            at = project.at("pyproject.toml", line_of(text, "version", section))
            return _manifest(name, Reading(value=version, at=at))
    if "version" in texts(own.get("dynamic")):
        return _manifest(name, _dynamic(project, data, text))
    if other := _from_setup_cfg(project) or _from_setup_py(project):
        return Manifest(file=other.file, package=name, version=other.version)
    at = project.at("pyproject.toml", line_of(text, "name", "project"))
    return _manifest(
        name, Reading(at=at, why="missing version: neither pyproject.toml, setup.cfg nor setup.py has one")
    )


def _manifest(name: str, version: Reading) -> Manifest:
    return Manifest(file="pyproject.toml", package=name, version=version)


def _dynamic(project: Folder, data: dict[str, Any], text: str) -> Reading:
    """Read a dynamic version, if the build reads it from a file that states it literally."""
    at = project.at("pyproject.toml", line_of(text, "dynamic", "project"))
    requires = texts(table(data, "build-system").get("requires"))
    hatch = table(data, "tool", "hatch", "version")
    scm = next((tool for tool in _TAG_TOOLS if any(_names(tool, text) for text in requires)), "")
    if hatch.get("source") == "vcs" or (scm and not hatch.get("path")):
        return _from_tags(project, text, scm or "hatch-vcs")
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
        return Reading(at=at, why=f"the version is in {path}, which does not set it exactly once")
    return Reading(value=found[0]["version"], at=project.at(path, text.count("\n", 0, found[0].start()) + 1))


def _from_tags(project: Folder, text: str, tool: str) -> Reading:
    at = project.at("pyproject.toml", line_of(text, "dynamic", "project"))
    return Reading(at=at, why=f"{tool} derives the version from git tags at build time; no file has it")


def _names(package: str, requirement: str) -> bool:
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
    keywords = {keyword.arg: keyword.value for keyword in calls[0].keywords} if len(calls) == 1 else {}
    constants = _constants(tree) if tree else {}
    name = _constant(keywords.get("name"), constants)
    if "use_scm_version" in keywords:
        reading = Reading(
            at=project.at("setup.py"), why="setuptools-scm derives the version from git tags; no file has it"
        )
        return Manifest(file="setup.py", package=name, version=reading)
    version = keywords.get("version")
    value = _constant(version, constants)
    if not value or version is None:
        why = "setup.py computes the version, or has a syntax error; it is not executed"
        return Manifest(file="setup.py", package=name, version=Reading(at=project.at("setup.py"), why=why))
    return Manifest(
        file="setup.py", package=name, version=Reading(value=value, at=project.at("setup.py", version.lineno))
    )


def _parsed(text: str) -> ast.Module | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about invalid escape sequences in the project's code
        try:
            return ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


def _calls_setup(function: ast.expr) -> bool:
    return (isinstance(function, ast.Name) and function.id == "setup") or (
        isinstance(function, ast.Attribute) and function.attr == "setup"
    )


def _constants(tree: ast.Module) -> dict[str, str]:
    """Return the module-level names that are assigned once, with a literal text."""
    stored = Counter(
        node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
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
