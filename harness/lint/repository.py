"""The repository that pointers refer to: its files, sessions, targets, scripts, tasks and CI jobs. Runs nothing."""

from __future__ import annotations

import ast
import json
import os
import re
import tomllib
from functools import cached_property
from pathlib import Path
from typing import Any

from msgspec import Struct

#: folders of generated or downloaded files
_GENERATED = frozenset(
    {".git", ".hg", ".nox", ".tox", ".venv", "venv", "node_modules", "__pycache__", "_build", "deps", "target", "dist"}
)
#: the index of file names stops here, so that a huge folder does not stall the linter
_MOST_FILES = 100_000
_PROJECT = "pooler-harness"


class Package(Struct, frozen=True):
    """A package that a manifest in the root folder declares, such as `pyproject.toml`."""

    name: str
    version: str
    manifest: str


class Repository:
    """A folder that pointers are resolved in. Each file is read once."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._texts: dict[Path, str | None] = {}

    def text(self, path: Path) -> str | None:
        """Return a file's text; None when the file is missing or unreadable."""
        if path not in self._texts:
            try:
                # a FIFO would block for ever
                self._texts[path] = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None
            except (OSError, ValueError):
                self._texts[path] = None
        return self._texts[path]

    def find(self, path: str, *folders: Path) -> Path | None:
        """Return the first file or folder with this path in one of the folders; None outside of the repository."""
        for folder in folders:
            try:
                found = (folder / path).resolve()
                if found.exists() and found.is_relative_to(self.root):
                    return found
            except (OSError, ValueError, RuntimeError):  # too long for a name, or a loop of links
                continue
        return None

    def matches(self, pattern: str, *folders: Path) -> bool:
        """Say whether a pattern with wildcards matches a file or folder."""
        for folder in folders:
            try:
                if next(folder.glob(pattern), None) is not None:
                    return True
            except (OSError, ValueError, NotImplementedError):
                continue
        return False

    def named(self, name: str) -> list[Path]:
        """Return the files with this name, in any folder of the repository."""
        return self._names.get(name, [])

    @cached_property
    def _names(self) -> dict[str, list[Path]]:
        names: dict[str, list[Path]] = {}
        count = 0
        for folder, folders, files in os.walk(self.root):
            folders[:] = [name for name in folders if name not in _GENERATED]
            for name in files:
                names.setdefault(name, []).append(Path(folder, name))
            count += len(files)
            if count > _MOST_FILES:
                break
        return names

    @cached_property
    def packages(self) -> tuple[Package, ...]:
        """Return the packages that manifests in the root folder declare."""
        found = [
            _python(self.text(self.root / "pyproject.toml") or ""),
            _mix(self.text(self.root / "mix.exs") or ""),
            _json(self.text(self.root / "package.json") or ""),
            _cargo(self.text(self.root / "Cargo.toml") or ""),
        ]
        return tuple(package for package in found if package)

    @property
    def is_this_project(self) -> bool:
        return any(package.name == _PROJECT for package in self.packages)

    @cached_property
    def ci_jobs(self) -> frozenset[str]:
        """Return the ids and names of jobs in GitHub Actions workflows and in `.gitlab-ci.yml`.

        The files are searched by patterns, so other keys and names are in the result, too.
        """
        files = [*sorted((self.root / ".github" / "workflows").glob("*.y*ml")), self.root / ".gitlab-ci.yml"]
        texts = [self.text(file) or "" for file in files]
        keys = {
            match[1]
            for text in texts
            for match in re.finditer(r"^(?: {2}| {4})?([\w.-]+):\s*(?:#.*)?$", text, re.MULTILINE)
        }
        names = {
            match[1]
            for text in texts
            for match in re.finditer(r"^\s+name:\s*[\"']?(.+?)[\"']?\s*$", text, re.MULTILINE)
        }
        return frozenset(keys | names)

    def make_targets(self, folder: Path) -> frozenset[str] | None:
        """Return the targets of a folder's makefile; None without a makefile.

        The result contains "%" when includes, patterns or variables may define more targets.
        """
        text = next((t for name in ("GNUmakefile", "makefile", "Makefile") if (t := self.text(folder / name))), None)
        if text is None:
            return None
        targets = {
            name
            for match in re.finditer(r"^([^\s#:=][^#:=\n]*?)\s*::?(?!=)", text, re.MULTILINE)
            for name in match[1].split()
        }
        open_ended = re.search(r"^-?s?include\s", text, re.MULTILINE) or any(
            "%" in target or "$" in target for target in targets
        )
        return frozenset(targets | ({"%"} if open_ended else set()))

    def scripts(self, folder: Path) -> frozenset[str] | None:
        """Return the scripts in a folder's `package.json`; None without that file."""
        text = self.text(folder / "package.json")
        if text is None:
            return None
        try:
            data = json.loads(text)
        except (ValueError, RecursionError):
            return frozenset()
        scripts = data.get("scripts") if isinstance(data, dict) else None
        return frozenset(scripts) if isinstance(scripts, dict) else frozenset()

    def mix_task(self, task: str, folder: Path) -> bool | None:
        """Say whether a Mix project defines an alias or task; None when a dependency may provide it."""
        text = self.text(folder / "mix.exs") or ""
        namespace = task.partition(".")[0]
        if re.search(rf"[\[,\s\"]{re.escape(task)}\"?:\s|\"{re.escape(task)}\"\s*(?:=>|:)", text):
            return True
        if self.find(f"lib/mix/tasks/{task}.ex", folder) or self.find(
            f"lib/mix/tasks/{task.replace('.', '/')}.ex", folder
        ):
            return True
        return None if re.search(rf"\{{\s*:{re.escape(namespace)}\w*\s*,", text) else False

    def sessions(self, noxfile: Path) -> Sessions | None:
        """Return the sessions of a noxfile; None without that file.

        A file that is not valid Python may have any session.
        """
        text = self.text(noxfile)
        if text is None:
            return None
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError, RecursionError):
            return Sessions(frozenset(), ("",))
        return _sessions(tree, noxfile.parent)


class Sessions(Struct, frozen=True):
    """The sessions of a noxfile: constant names, and the constant prefixes of generated names."""

    names: frozenset[str]
    prefixes: tuple[str, ...] = ()

    def knows(self, name: str) -> bool | None:
        """Say whether a session exists; None when the noxfile may generate it."""
        plain = re.sub(r"-(?:python)?\d+(?:\.\d+)?$|\(.*\)$", "", name)
        if {name, plain} & self.names:
            return True
        return None if name.startswith(self.prefixes) else False


def _sessions(tree: ast.Module, folder: Path) -> Sessions:
    names: set[str] = set()
    prefixes: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            for decorator in node.decorator_list:
                call = decorator.func if isinstance(decorator, ast.Call) else decorator
                if _is_session(call) and not (isinstance(decorator, ast.Call) and _name_argument(decorator)):
                    names.add(node.name)
        if isinstance(node, ast.Call) and _is_session(node.func) and (name := _name_argument(node)):
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                names.add(name.value)
            else:
                prefixes.add(_prefix(name))
    if "topology-" in prefixes and (stems := {path.stem for path in (folder / "topologies").glob("*.toml")}):
        prefixes.remove("topology-")
        names |= {f"topology-{stem}" for stem in stems}
    return Sessions(frozenset(names), tuple(sorted(prefixes)))


def _is_session(node: ast.expr) -> bool:
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    return name in {"session", "nox_session"}


def _name_argument(call: ast.Call) -> ast.expr | None:
    return next((keyword.value for keyword in call.keywords if keyword.arg == "name"), None)


def _prefix(node: ast.expr) -> str:
    """Return the constant prefix of an f-string; "" for any other expression, which may give any name."""
    first = node.values[0] if isinstance(node, ast.JoinedStr) and node.values else None
    return str(first.value) if isinstance(first, ast.Constant) else ""


def _toml(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError):  # also for digits without end
        return {}


def _declared(table: object, manifest: str) -> Package | None:
    if not isinstance(table, dict):
        return None
    name, version = table.get("name"), table.get("version")
    return Package(name, version, manifest) if isinstance(name, str) and isinstance(version, str) else None


def _python(text: str) -> Package | None:
    data = _toml(text)
    tool = data.get("tool")
    poetry = tool.get("poetry") if isinstance(tool, dict) else None
    return _declared(data.get("project"), "pyproject.toml") or _declared(poetry, "pyproject.toml")


def _cargo(text: str) -> Package | None:
    return _declared(_toml(text).get("package"), "Cargo.toml")


def _json(text: str) -> Package | None:
    try:
        return _declared(json.loads(text or "null"), "package.json")
    except (ValueError, RecursionError):
        return None


def _mix(text: str) -> Package | None:
    name = re.search(r"\bapp:\s*:(\w+)", text)
    version = re.search(r"@version\s+\"([^\"]+)\"", text) or re.search(r"\bversion:\s*\"([^\"]+)\"", text)
    return Package(name[1], version[1], "mix.exs") if name and version else None
