"""Secrets stay out of `harness.toml`: each is named by an environment variable, and looked up when it is needed."""

from __future__ import annotations

import re
from shlex import join
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from harness.errors import ConfigError, UsageError
from harness.redaction import Redactor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from harness.host.declarations import CommandDeclaration, EnvironmentDeclaration, PathDeclaration

T = TypeVar("T")

_VARIABLE = re.compile(r"\benv:([A-Za-z_][A-Za-z0-9_]*)")
#: a text that is a secret's name and no secret, with the word before it that a header wants
_NAMED = re.compile(r"(?:(?:Bearer|Basic|Token|Digest) )?env:[A-Za-z_][A-Za-z0-9_]*")
#: a shorter one would blank out ordinary text
_SHORTEST = 8
#: it is filled in when a path is taken
_FILLED = re.compile(r"\{[\w.-]+\}")
#: variables of every shell that are called as passwords are, and hold folders
_FOLDERS = ("PWD", "OLDPWD")
#: keys whose values are secrets, whatever they look like
_SECRET_NAME = re.compile(
    r"(?i)passw|passphrase|pwd|secret|token|authorization|cookie|api[-_]?key|credential|private[-_]?key"
)
_SECRET_IN_QUERY = re.compile(
    r"(?i)[?&][\w.-]*(?:passw|pwd|secret|token|api[-_]?key|signature)[\w.-]*=(?!env:|\{)[^&\s]+"
)
#: places in an answer, and columns of the trail: names, whatever they are called
_NAMES_ONLY = ("keep", "expect")


def variables_of(declared: object) -> list[str]:
    """Return the environment variables that a declaration names, in their order."""
    return list(dict.fromkeys(name for _, _, text in _texts(declared, "") for name in _VARIABLE.findall(text)))


def secrets_of(variables: Mapping[str, str], *declared: Iterable[object]) -> list[str]:
    """Return what a command that inherits these variables might print: those that are named as secrets, or by name."""
    named = {name for group in declared for each in group for name in variables_of(each)}
    return [
        value
        for name, value in variables.items()
        if (name in named or (_SECRET_NAME.search(name) and name not in _FOLDERS)) and len(value) >= _SHORTEST
    ]


def fill_in(text: str, variables: Mapping[str, str]) -> str:
    """Return a text with the values of the variables that it names."""
    return _VARIABLE.sub(lambda found: variables[found[1]], text)


def require_set(names: Iterable[str], variables: Mapping[str, str], whose: str) -> None:
    """Refuse to begin while a variable is not set.

    :raises UsageError: naming all that are not.
    """
    if missing := [each for each in names if not variables.get(each)]:
        raise UsageError(
            f"{whose} is named by environment variables that are not set: {', '.join(missing)}",
            where="harness.toml",
            hint=f"export {missing[0]}=…",
        )


def looked_up(declared: T, variables: Mapping[str, str], redactor: Redactor) -> T:
    """Return a declaration with the values of the variables that it names; each is a secret to the redactor.

    :raises UsageError: naming the variables that are not set.
    """
    names = variables_of(declared)
    require_set(names, variables, "a path")
    for name in names:
        redactor.learn(variables[name], *variables[name].split())
    return _replaced(declared, lambda text: fill_in(text, variables))


def _replaced(declared: T, change: Callable[[str], str]) -> T:
    """Return a declaration with every text changed that may hold a secret; names and expectations stay."""

    def walk(value: Any) -> Any:
        if isinstance(value, str):
            return change(value)
        if isinstance(value, dict):
            return {key: each if key in _NAMES_ONLY else walk(each) for key, each in value.items()}
        return [walk(each) for each in value] if isinstance(value, list | tuple) else value

    return msgspec.convert(walk(msgspec.to_builtins(declared)), type(declared))


def refuse_secrets(
    environments: Mapping[str, EnvironmentDeclaration],
    paths: Iterable[PathDeclaration],
    commands: Iterable[CommandDeclaration] = (),
) -> None:
    """Refuse a secret that is written in the file instead of being named by an environment variable.

    :raises ConfigError: naming the key, and never repeating the value.
    """
    redact = Redactor()
    for where, key, value in [
        *(each for name, declared in environments.items() for each in _texts(declared, f"environments.{name}")),
        *(each for path in paths for each in _texts(path, f"paths.{path.name}")),
        *(each for command in commands for each in _texts(command, f"commands.{command.name}")),
        # an option's value is told by the option before it
        *((f"commands.{each.name}.command", "command", join(each.command)) for each in commands),
        *((f"paths.{each.name}.command", "command", join(each.command)) for each in paths if each.command),
    ]:
        if not value or _NAMED.fullmatch(value) or (_SECRET_NAME.search(key) and _FILLED.search(value)):
            continue
        without = _VARIABLE.sub("", value)
        if redact(without) != without or _SECRET_NAME.search(key) or _SECRET_IN_QUERY.search(value):
            raise ConfigError(
                f"{where}: a secret is written in the file, and must not be",
                where="harness.toml",
                hint=f'{key} = "env:NAME", and the value in that environment variable',
            )


def _texts(declared: object, where: str) -> list[tuple[str, str, str]]:
    """Return every text below a declaration: its place, the last part of that, and the text."""
    found: list[tuple[str, str, str]] = []

    def walk(value: Any, at: str) -> None:
        if isinstance(value, str):
            found.append((at, at.rpartition(".")[2], value))
        elif isinstance(value, dict):
            for key, each in value.items():
                if key not in _NAMES_ONLY:
                    walk(each, f"{at}.{key}")
        elif isinstance(value, list | tuple):
            for each in value:
                walk(each, at)

    walk(msgspec.to_builtins(declared), where)
    return found
