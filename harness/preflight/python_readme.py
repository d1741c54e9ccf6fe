"""Finds the version constraints that a Python library's README documents.

Sources are install commands, quoted requirements, lines of a `requirements.txt`, and keys in Poetry's format.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

from msgspec import Struct
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from harness.preflight.project_files import Constraint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.preflight.project_files import Folder

READMES = ("README.md", "README.rst", "README.txt", "README", "readme.md", "Readme.md")

_INSTALLS = re.compile(
    r"\b(?:pip[0-9.]*|pipx|uv|poetry|pdm|rye|pipenv)\b(?:\s+(?:-\S+|pip|tool))*\s+(?:install|add)\s+(?P<what>[^`\n]+)"
)
_PRE = re.compile(r"--pre(?:release)?s?\b|--allow-prereleases\b")
_OPERATOR = r"(?:===|==|~=|!=|<=|>=|<|>)"
_RELEASE = r"([0-9]{1,9}(?:\.[0-9]{1,9})*)"
_CARET = re.compile(rf"\^\s*{_RELEASE}")
_TILDE = re.compile(rf"~\s*{_RELEASE}")
_WILD = re.compile(rf"{_RELEASE}\.\*")
#: longer lines are skipped: they are not instructions for readers
_LONGEST_LINE = 1000


class _Written(Struct, frozen=True, kw_only=True):
    """A constraint as written in a line of the README."""

    text: str
    #: in Poetry's syntax: carets and tildes; a bare version means exactly that version
    poetry: bool
    line: int
    #: the install command allows pre-releases
    pre: bool


def documented(project: Folder, package: str, version: str) -> tuple[Constraint, ...]:
    """Return every constraint on the package in the README, each with whether it admits a version.

    :param version: in the format of PEP 440.
    """
    readme = next((name for name in READMES if project.text(name) is not None), "")
    found = []
    for written in _constraints(project.text(readme) or "" if readme else "", package):
        admits, why = _judge(written, Version(version))
        found.append(Constraint(text=written.text, at=project.at(readme, written.line), admits=admits, why=why))
    return tuple(dict.fromkeys(found))


def _constraints(text: str, package: str) -> Iterator[_Written]:
    name = r"(?<![\w.-])" + r"[-_.]+".join(map(re.escape, canonicalize_name(package).split("-"))) + r"(?![\w-])"
    extras = r"(?:\s*\[[\w\s,.-]*\])?"
    key = re.compile(
        rf"^\s*[\"']?{name}[\"']?\s*=\s*(?:[\"']([^\"']*)[\"']|\{{.*?version\s*=\s*[\"']([^\"']*)[\"'])", re.IGNORECASE
    )
    quoted = re.compile(rf"[\"']{name}{extras}\s*\(?({_OPERATOR}[^\"';)]*)", re.IGNORECASE)
    alone = re.compile(rf"^\s*(?:[-*$]\s+)?{name}{extras}\s*({_OPERATOR}[^;#]*?)\s*(?:[;#].*)?$", re.IGNORECASE)
    token = re.compile(rf"^{name}{extras}\s*(.*)$", re.IGNORECASE)
    for number, line in enumerate(text.splitlines(), 1):
        if len(line) > _LONGEST_LINE:
            continue
        pre = _PRE.search(line) is not None
        if install := _INSTALLS.search(line):
            arguments = [match[1] for argument in _tokens(install["what"]) if (match := token.match(argument))]
            for constraint in arguments:
                if not constraint.startswith(("@ ", "@git", "@http", "@file")):  # a direct reference
                    poetry = constraint.startswith("@")
                    yield _Written(text=constraint.removeprefix("@").strip(), poetry=poetry, line=number, pre=pre)
        elif match := key.search(line):
            yield _Written(text=(match[1] or match[2] or "").strip(), poetry=True, line=number, pre=pre)
        elif match := quoted.search(line):
            yield _Written(text=match[1].strip(), poetry=False, line=number, pre=pre)
        else:
            for piece in (line, *line.split("`")[1::2]):
                if match := alone.match(piece):
                    yield _Written(text=match[1].strip(), poetry=False, line=number, pre=pre)
                    break


def _tokens(command: str) -> list[str]:
    """Return the words of the first command in a line."""
    try:
        words = shlex.split(command, comments=True)
    except ValueError:
        words = [word.strip("\"'") for word in command.split()]
    ends = next((number for number, word in enumerate(words) if word in {"&&", "||", "|", ";"}), len(words))
    return words[:ends]


def _judge(written: _Written, version: Version) -> tuple[bool | None, str]:
    try:
        choices = _poetry(written.text) if written.poetry else [SpecifierSet(written.text)]
    except (InvalidSpecifier, InvalidVersion):
        return None, f"invalid constraint {written.text!r}"
    admitting = [choice for choice in choices if choice.contains(version, prereleases=True)]
    if not admitting:
        return False, f"{written.text} does not admit {version}"
    # installers use a pre-release only when it is requested
    if version.is_prerelease and not written.pre and not any(choice.prereleases for choice in admitting):
        constraint = written.text or "a requirement without a version"
        return False, f"{constraint} does not admit the pre-release {version} unless requested"
    return True, ""


def _poetry(text: str) -> list[SpecifierSet]:
    """Return a constraint in Poetry's syntax as alternative sets of specifiers."""
    if text in {"", "*", "latest"}:
        return [SpecifierSet()]
    return [_poetry_all(alternative) for alternative in text.split("||")]


def _poetry_all(text: str) -> SpecifierSet:
    found = SpecifierSet()
    for part in filter(None, re.split(r"\s*,\s*|\s+(?=[\^~<>=!])", text.strip())):
        found &= SpecifierSet(_poetry_one(part))
    return found


def _poetry_one(text: str) -> str:
    if match := _CARET.fullmatch(text):
        parts = [int(part) for part in match[1].split(".")]
        # the leftmost part that is not zero is fixed; if all parts are zero, the last one
        at = next((number for number, part in enumerate(parts) if part), len(parts) - 1)
        return f">={match[1]},<{_raised(parts, at)}"
    if match := _TILDE.fullmatch(text):
        parts = [int(part) for part in match[1].split(".")]
        return f">={match[1]},<{_raised(parts, min(1, len(parts) - 1))}"
    if match := _WILD.fullmatch(text):
        return f"=={match[1]}.*"
    if re.match(_OPERATOR, text):
        return text
    return f"=={text.removeprefix('=').strip()}"


def _raised(parts: list[int], at: int) -> str:
    return ".".join(str(part) for part in [*parts[:at], parts[at] + 1])
