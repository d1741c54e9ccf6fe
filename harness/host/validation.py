"""Validates the host declarations of `harness.toml` as a whole, before anything is connected or run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from harness import config
from harness.audit.actor import Actor, ActorError
from harness.errors import ConfigError, UsageError
from harness.host.env_secrets import refuse_secrets
from harness.host.junit_verdict import require_patterns
from harness.host.reasons import FEWEST_WORDS, is_vague, not_yet
from harness.recognition.contradictions import contradictions
from harness.recognition.findings import Recognition

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from harness.host.declarations import (
        CommandDeclaration,
        EnvironmentDeclaration,
        MigrationDeclaration,
        PathDeclaration,
    )


#: the names of the migrations that ship with the harness
RESERVED_MIGRATIONS = frozenset({"reference"})
_YES_NO = ("yes", "no")
#: facts with a closed set of values
_FACT_VALUES = {
    "pool_mode": ("session", "transaction", "statement", "none"),
    **dict.fromkeys(("pooler", "direct", "same_server", "in_recovery"), _YES_NO),
}


def require_host_sound(
    environments: Mapping[str, EnvironmentDeclaration],
    paths: tuple[PathDeclaration, ...],
    commands: tuple[CommandDeclaration, ...],
    where: Path,
    migrations: tuple[MigrationDeclaration, ...] = (),
) -> None:
    """Reject declarations that contradict each other, name something undefined, or could never be judged.

    :param where: the file, for the message.
    :raises ConfigError: naming the key.
    """
    try:
        refuse_secrets(environments, paths, commands, migrations)
        _require_unique("paths", (path.name for path in paths))
        _require_unique("commands", (command.name for command in commands))
        _require_unique("migrations", (declared.name for declared in migrations))
        for declared in migrations:
            _require_migrations(declared)
        for command in commands:
            require_patterns(command.junit)
        for path in paths:
            _require_path(path, environments)
        for name, environment in environments.items():
            _require_environment(name, environment, environments)
    except ConfigError as error:
        error.where = str(where)
        raise


def _require_unique(key: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ConfigError(f"{key}: found two entries with the name {name!r}", hint="rename one of them")
        seen.add(name)


def _require_migrations(declared: MigrationDeclaration) -> None:
    if declared.name in RESERVED_MIGRATIONS:
        raise ConfigError(
            f"migrations: the name {declared.name!r} is reserved for migrations that ship with the harness",
            hint="rename the entry",
        )
    if declared.down_empties and not declared.down:
        raise ConfigError(
            f"migrations: {declared.name}: found down_empties without a way back",
            hint="add down, or remove down_empties",
        )


def _require_path(path: PathDeclaration, environments: Mapping[str, EnvironmentDeclaration]) -> None:
    at = f"paths: {path.name}"
    if path.name.startswith("reference-"):
        raise ConfigError(f"{at}: names that begin with reference- are reserved for the reference host")
    for name in path.environments:
        if name not in environments:
            raise ConfigError(f"{at}: unknown environment {name!r}", hint=config.nearest(name, environments))
    if path.not_applicable:
        require_reason(at, path.not_applicable)
        return
    if path.expect is None:
        raise ConfigError(f"{at}: missing [paths.expect]", hint="add it, or explain with not_applicable = …")
    if not (path.steps or path.job or path.command):
        raise ConfigError(f"{at}: found no step, job or command; at least one is needed to run the path")
    if path.job and path.command:
        raise ConfigError(f"{at}: found a job and a command, expected one of them")
    if path.kind == "HTTP" and (path.job or path.command):
        raise ConfigError(f'{at}: found a job or a command on a path of kind HTTP, expected kind = "job"')
    if path.fails and not (path.fails.steps or path.fails.job):
        raise ConfigError(f"{at}: the failing variant has neither steps nor a job")
    _require_identifiable(at, path)
    if path.expect.operation == "delete" and path.expect.where:
        raise ConfigError(
            f"{at}: found `where` on a delete, which leaves no row to compare", hint='key = { id = "{post_id}" }'
        )
    if path.expect.actor is not None:
        _require_actor(at, path.expect.actor)


def _require_identifiable(at: str, path: PathDeclaration) -> None:
    """Require that the declaration identifies the rows of one attempt among the rows of others."""
    if path.expect is None:
        return
    identifying = f"{path.expect.where} {path.expect.key}"
    kept = {name for step in path.steps for name in step.keep}
    if "{unique}" not in identifying and not any(f"{{{name}}}" in identifying for name in kept):
        raise ConfigError(
            f"{at}: nothing in `where` or `key` identifies the rows of one attempt",
            hint='send {unique} in the request, and compare it: where = { slug = "{unique}" }',
        )
    sent = _as_text(path.steps, path.job, path.command)
    if "{unique}" in identifying and "{unique}" not in sent:
        raise ConfigError(f"{at}: `where` or `key` compares {{unique}}, but no step, job or command sends it")
    if path.expect.row and "{unique}" not in str(path.expect.row) and not path.expect.key:
        raise ConfigError(f"{at}: `row` must compare {{unique}}, because no `key` identifies the rows in the table")
    if path.fails and "{unique}" not in _as_text(path.fails.steps, path.fails.job):
        raise ConfigError(f"{at}: the failing variant must send {{unique}}, so that rows left behind are recognised")


def _as_text(*declared: object) -> str:
    """Return declarations as one JSON text, to search for placeholders.

    :raises ConfigError: for a value that JSON cannot represent, such as nan.
    """
    try:
        return msgspec.json.encode(declared).decode()
    except (ValueError, TypeError) as error:
        raise ConfigError(f"found a value that JSON cannot represent: {error}") from None


def _require_environment(
    name: str, declared: EnvironmentDeclaration, environments: Mapping[str, EnvironmentDeclaration]
) -> None:
    at = f"environments.{name}"
    for caller in declared.callers:
        _require_actor(f"{at}.callers", caller.actor)
    if declared.canary and declared.scratch_schema:
        raise ConfigError(f"{at}: found canary and scratch_schema, expected one of them")
    if declared.compare_with and declared.compare_with not in environments:
        raise ConfigError(
            f"{at}.compare_with: unknown environment {declared.compare_with!r}",
            hint=config.nearest(declared.compare_with, environments),
        )
    if declared.compare_with and declared.production:
        raise ConfigError(f"{at}: found compare_with and production, expected one of them: both describe production")
    if declared.compare_with == name:
        raise ConfigError(f"{at}.compare_with: found the environment itself, expected another one")
    for fact, value in declared.declared.items():
        if fact in _FACT_VALUES and value not in _FACT_VALUES[fact]:
            raise ConfigError(
                f"{at}.declared: {fact}: found {value!r}, expected one of {', '.join(_FACT_VALUES[fact])}",
                hint=config.nearest(value, _FACT_VALUES[fact]),
            )
    try:
        contradictions(Recognition(findings=()), declared.declared)
    except UsageError as error:
        raise ConfigError(f"{at}.declared: {error.what}", hint=error.hint) from None


def _require_actor(at: str, actor: Mapping[str, str]) -> None:
    if any("{" in value for value in actor.values()):
        return
    try:
        Actor.from_map(actor)
    except ActorError as error:
        raise ConfigError(f"{at}: invalid actor: {error}") from None


def require_reason(at: str, reason: str) -> None:
    """Require an objective reason for N/A, in one line. A reason for Not run is rejected.

    :param at: the key, for the message.
    :raises ConfigError: naming the mistake.
    """
    if "\n" in reason:
        raise ConfigError(f"{at}: found a reason of several lines, expected one line")
    if pending := not_yet(reason):
        words = " ".join(pending.lower().split())
        raise ConfigError(
            f"{at}: found {reason!r}: {words!r} is a reason for Not run, expected one for N/A",
            hint="remove not_applicable: a path that was not exercised is Not run",
        )
    if is_vague(reason) or len(reason.split()) < FEWEST_WORDS:
        raise ConfigError(
            f"{at}: found {reason!r}, expected an objective reason of at least {FEWEST_WORDS} words about the host",
            hint="for example: no background job executor in this deployment",
        )
