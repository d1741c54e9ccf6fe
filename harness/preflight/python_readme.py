"""Which versions a Python library's README tells its readers to ask for.

Read from install commands, quoted requirements, lines of a `requirements.txt`, and keys as Poetry writes them.
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
#: a longer line is no instruction to anybody
_LONGEST_LINE = 1000


class _Asked(Struct, frozen=True, kw_only=True):
    """A constraint as it stands in a line."""

    text: str
    #: as Poetry reads it: carets, tildes, a bare version is that version
    poetry: bool
    line: int
    pre: bool


def documented(project: Folder, package: str, version: str) -> tuple[Constraint, ...]:
    """Return every constraint on the package in the README, and whether it admits a version.

    :param version: as PEP 440 writes it.
    """
    readme = next((name for name in READMES if project.text(name) is not None), "")
    found = []
    for asked in _asked(project.text(readme) or "" if readme else "", package):
        admits, why = _judge(asked, Version(version))
        found.append(Constraint(text=asked.text, at=project.at(readme, asked.line), admits=admits, why=why))
    return tuple(dict.fromkeys(found))


def _asked(text: str, package: str) -> Iterator[_Asked]:
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
            asked = [match[1] for each in _tokens(install["what"]) if (match := token.match(each))]
            for each in asked:
                if not each.startswith(("@ ", "@git", "@http", "@file")):  # a place, and no constraint
                    poetry = each.startswith("@")
                    yield _Asked(text=each.removeprefix("@").strip(), poetry=poetry, line=number, pre=pre)
        elif match := key.search(line):
            yield _Asked(text=(match[1] or match[2] or "").strip(), poetry=True, line=number, pre=pre)
        elif match := quoted.search(line):
            yield _Asked(text=match[1].strip(), poetry=False, line=number, pre=pre)
        else:
            for piece in (line, *line.split("`")[1::2]):
                if match := alone.match(piece):
                    yield _Asked(text=match[1].strip(), poetry=False, line=number, pre=pre)
                    break


def _tokens(command: str) -> list[str]:
    """Return the words of the first command in a line."""
    try:
        words = shlex.split(command, comments=True)
    except ValueError:
        words = [each.strip("\"'") for each in command.split()]
    ends = next((n for n, each in enumerate(words) if each in {"&&", "||", "|", ";"}), len(words))
    return words[:ends]


def _judge(asked: _Asked, version: Version) -> tuple[bool | None, str]:
    try:
        choices = _poetry(asked.text) if asked.poetry else [SpecifierSet(asked.text)]
    except (InvalidSpecifier, InvalidVersion):
        return None, f"{asked.text!r} is no constraint that can be read"
    fitting = [each for each in choices if each.contains(version, prereleases=True)]
    if not fitting:
        return False, f"{asked.text} does not admit {version}"
    # a pre-release is taken only where one is asked for
    if version.is_prerelease and not asked.pre and not any(each.prereleases for each in fitting):
        return False, f"{asked.text or 'what names no version'} admits no pre-release such as {version} unless asked to"
    return True, ""


def _poetry(text: str) -> list[SpecifierSet]:
    """Return Poetry's constraint as sets of specifiers, any of which may hold."""
    if text in {"", "*", "latest"}:
        return [SpecifierSet()]
    return [_poetry_all(each) for each in text.split("||")]


def _poetry_all(text: str) -> SpecifierSet:
    found = SpecifierSet()
    for each in filter(None, re.split(r"\s*,\s*|\s+(?=[\^~<>=!])", text.strip())):
        found &= SpecifierSet(_poetry_one(each))
    return found


def _poetry_one(text: str) -> str:
    if match := _CARET.fullmatch(text):
        parts = [int(part) for part in match[1].split(".")]
        # the leftmost part that is not zero may not change; of nothing but zeros, the last that is named
        at = next((n for n, part in enumerate(parts) if part), len(parts) - 1)
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
