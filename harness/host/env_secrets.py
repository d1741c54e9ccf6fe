"""Secrets stay out of `harness.toml`: each one is named as `env:NAME` and read from the environment when needed."""

from __future__ import annotations

import re
from shlex import join
from typing import TYPE_CHECKING, Any

import msgspec

from harness.errors import ConfigError, UsageError
from harness.redaction import Redactor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from harness.host.declarations import (
        CommandDeclaration,
        EnvironmentDeclaration,
        MigrationDeclaration,
        PathDeclaration,
    )

_VARIABLE = re.compile(r"\benv:([A-Za-z_][A-Za-z0-9_]*)")
#: the keys of migrations that hold the words of a command
MIGRATION_COMMANDS = ("up", "down", "local", "starts")
#: a text that only names a variable, with the scheme before it that an authorization header needs
_NAMED = re.compile(r"(?:(?:Bearer|Basic|Token|Digest) )?env:[A-Za-z_][A-Za-z0-9_]*")
#: redacting a shorter value would blank out ordinary text
_SHORTEST = 8
#: a placeholder, filled in when a path runs
_PLACEHOLDER = re.compile(r"\{[\w.-]+\}")
#: variables of every shell whose names look like passwords, and whose values are folders
_FOLDERS = ("PWD", "OLDPWD")
#: keys whose values are secrets, whatever the values look like
_SECRET_NAME = re.compile(
    r"(?i)passw|passphrase|pwd|secret|token|authorization|cookie|api[-_]?key|credential|private[-_]?key"
)
_SECRET_IN_QUERY = re.compile(
    r"(?i)[?&][\w.-]*(?:passw|pwd|secret|token|api[-_]?key|signature)[\w.-]*=(?!env:|\{)[^&\s]+"
)
#: keys whose tables hold paths into a response and columns of the trail, never secrets
_NAMES_ONLY = ("keep", "expect")


def variables_of(declared: object) -> list[str]:
    """Return the environment variables that a declaration names, in order of their first use."""
    return list(dict.fromkeys(name for _, _, text in _texts(declared, "") for name in _VARIABLE.findall(text)))


def secrets_of(variables: Mapping[str, str], *declared: Iterable[object]) -> list[str]:
    """Return the secrets that a command might print when it inherits these variables.

    :param variables: of this process: name to value.
    :param declared: declarations; a variable that one of them names holds a secret, whatever its name.
    """
    named = {name for group in declared for declaration in group for name in variables_of(declaration)}
    return [
        value
        for name, value in variables.items()
        if (name in named or (_SECRET_NAME.search(name) and name not in _FOLDERS)) and len(value) >= _SHORTEST
    ]


def fill_in(text: str, variables: Mapping[str, str]) -> str:
    """Return a text with each `env:NAME` replaced by the value of the variable."""
    return _VARIABLE.sub(lambda found: variables[found[1]], text)


def require_set(names: Iterable[str], variables: Mapping[str, str], needed_by: str) -> None:
    """Require that every variable is set and not empty.

    :param needed_by: for the message, such as "environment staging".
    :raises UsageError: naming all variables that are not set.
    """
    if missing := [name for name in names if not variables.get(name)]:
        raise UsageError(
            f"{needed_by} needs environment variables that are not set: {', '.join(missing)}",
            where="harness.toml",
            hint=f"export {missing[0]}=…",
        )


def looked_up(path: PathDeclaration, variables: Mapping[str, str], redactor: Redactor) -> PathDeclaration:
    """Return a path with the values of the variables that it names, and let the redactor learn each value.

    :raises UsageError: naming the variables that are not set.
    """
    names = variables_of(path)
    require_set(names, variables, f"path {path.name}")
    for name in names:
        redactor.learn(variables[name], *variables[name].split())
    return _replaced(path, lambda text: fill_in(text, variables))


def _replaced(path: PathDeclaration, change: Callable[[str], str]) -> PathDeclaration:
    """Return a path with a function applied to every text that may hold a secret; `keep` and `expect` stay."""

    def walk(value: Any) -> Any:
        if isinstance(value, str):
            return change(value)
        if isinstance(value, dict):
            return {key: inner if key in _NAMES_ONLY else walk(inner) for key, inner in value.items()}
        return [walk(inner) for inner in value] if isinstance(value, list | tuple) else value

    return msgspec.convert(walk(msgspec.to_builtins(path)), type(path))


def refuse_secrets(
    environments: Mapping[str, EnvironmentDeclaration],
    paths: Iterable[PathDeclaration],
    commands: Iterable[CommandDeclaration] = (),
    migrations: Iterable[MigrationDeclaration] = (),
) -> None:
    """Reject a secret that the file holds itself instead of naming an environment variable.

    :raises ConfigError: naming the key, without the value.
    """
    redact = Redactor()
    for where, key, value in [
        *(text for name, declared in environments.items() for text in _texts(declared, f"environments.{name}")),
        *(text for path in paths for text in _texts(path, f"paths.{path.name}")),
        *(text for command in commands for text in _texts(command, f"commands.{command.name}")),
        # joined, because the option before a value shows that it is a secret
        *((f"commands.{command.name}.command", "command", join(command.command)) for command in commands),
        *((f"paths.{path.name}.command", "command", join(path.command)) for path in paths if path.command),
        *(
            (f"migrations.{declared.name}.{key}", key, join(getattr(declared, key)))
            for declared in migrations
            for key in MIGRATION_COMMANDS
        ),
    ]:
        if not value or _NAMED.fullmatch(value) or (_SECRET_NAME.search(key) and _PLACEHOLDER.search(value)):
            continue
        without = _VARIABLE.sub("", value)
        if redact(without) != without or _SECRET_NAME.search(key) or _SECRET_IN_QUERY.search(value):
            raise ConfigError(
                f"{where}: found a secret, expected the name of an environment variable",
                where="harness.toml",
                hint=f'{key} = "env:NAME", with the secret in the environment variable NAME',
            )


def _texts(declared: object, where: str) -> list[tuple[str, str, str]]:
    """Return every text in a declaration: its full key, the last part of the key, and the text."""
    found: list[tuple[str, str, str]] = []

    def walk(value: Any, at: str) -> None:
        if isinstance(value, str):
            found.append((at, at.rpartition(".")[2], value))
        elif isinstance(value, dict):
            for key, inner in value.items():
                if key not in _NAMES_ONLY:
                    walk(inner, f"{at}.{key}")
        elif isinstance(value, list | tuple):
            for inner in value:
                walk(inner, at)

    walk(msgspec.to_builtins(declared), where)
    return found
