"""Whether what `harness.toml` says of hosts makes sense as a whole, before anything is asked or run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from harness import config
from harness.audit.actor import Actor, ActorError
from harness.errors import ConfigError, UsageError
from harness.host.env_secrets import refuse_secrets
from harness.host.junit_verdict import require_patterns
from harness.host.reasons import FEWEST_WORDS, NOT_YET, is_vague
from harness.recognition.contradictions import contradictions
from harness.recognition.findings import Recognition

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from harness.host.declarations import CommandDeclaration, EnvironmentDeclaration, PathDeclaration


_YES_NO = ("yes", "no")
#: facts whose values are words of a closed set
_WORDS = {
    "pool_mode": ("session", "transaction", "statement", "none"),
    **dict.fromkeys(("pooler", "direct", "same_server", "in_recovery"), _YES_NO),
}


def require_host_sound(
    environments: Mapping[str, EnvironmentDeclaration],
    paths: tuple[PathDeclaration, ...],
    commands: tuple[CommandDeclaration, ...],
    where: Path,
) -> None:
    """Refuse what contradicts itself, names what there is not, or could never be judged.

    :raises ConfigError: naming the key.
    """
    try:
        refuse_secrets(environments, paths, commands)
        _require_different("paths", (each.name for each in paths))
        _require_different("commands", (each.name for each in commands))
        for command in commands:
            require_patterns(command.junit)
        for path in paths:
            _require_path(path, environments)
        for name, environment in environments.items():
            _require_environment(name, environment, environments)
    except ConfigError as error:
        error.where = str(where)
        raise


def _require_different(key: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ConfigError(f"{key}: there are two called {name}")
        seen.add(name)


def _require_path(path: PathDeclaration, environments: Mapping[str, EnvironmentDeclaration]) -> None:
    at = f"paths: {path.name}"
    if path.name.startswith("reference-"):
        raise ConfigError(f"{at}: names that begin with reference- are those of the reference host's paths")
    for name in path.environments:
        if name not in environments:
            raise ConfigError(f"{at}: there is no environment {name!r}", hint=config.nearest(name, environments))
    if path.not_applicable:
        require_reason(at, path.not_applicable)
        return
    if path.expect is None:
        raise ConfigError(f"{at}: nothing is expected of it", hint="add [paths.expect], or say not_applicable = …")
    if not (path.steps or path.job or path.command):
        raise ConfigError(f"{at}: there is no step, no job and no command, so nothing takes it")
    if path.job and path.command:
        raise ConfigError(f"{at}: found a job and a command; one of them takes the path")
    if path.kind == "HTTP" and (path.job or path.command):
        raise ConfigError(f'{at}: a path of kind HTTP is taken by a request; needed kind = "job"')
    if path.fails and not (path.fails.steps or path.fails.job):
        raise ConfigError(f"{at}: the variant that fails has neither steps nor a job")
    told_by = f"{path.expect.where} {path.expect.key}"
    kept = {name for step in path.steps for name in step.keep}
    if "{unique}" not in told_by and not any(f"{{{name}}}" in told_by for name in kept):
        raise ConfigError(
            f"{at}: nothing tells its rows from everybody else's",
            hint='let a value that the request writes hold {unique}, and name it: where = { slug = "{unique}" }',
        )
    sent = _texts_of(path.steps, path.job, path.command)
    if "{unique}" in told_by and "{unique}" not in sent:
        raise ConfigError(f"{at}: `where` holds {{unique}}, and nothing that takes the path sends it")
    if path.expect.row and "{unique}" not in str(path.expect.row) and not path.expect.key:
        raise ConfigError(f"{at}: `row` tells its rows in the table, and holds no {{unique}}")
    if path.fails and "{unique}" not in _texts_of(path.fails.steps, path.fails.job):
        raise ConfigError(
            f"{at}: the variant that fails sends no {{unique}}, so nobody could tell whether it left something"
        )
    if path.expect.operation == "delete" and path.expect.where:
        raise ConfigError(f"{at}: a delete leaves no row to hold `where`", hint='key = { id = "{post_id}" }')
    if path.expect.actor is not None:
        _require_actor(at, path.expect.actor)


def _texts_of(*declared: object) -> str:
    """Return what is sent as one text, in which a name can be looked for.

    :raises ConfigError: for what no JSON can hold, such as nan.
    """
    try:
        return msgspec.json.encode(declared).decode()
    except (ValueError, TypeError) as error:
        raise ConfigError(f"found a value that JSON cannot hold: {error}") from None


def _require_environment(
    name: str, declared: EnvironmentDeclaration, environments: Mapping[str, EnvironmentDeclaration]
) -> None:
    at = f"environments.{name}"
    for caller in declared.callers:
        _require_actor(f"{at}.callers", caller.actor)
    if declared.canary and declared.scratch_schema:
        raise ConfigError(f"{at}: found a canary table and a scratch schema; one of them is written to")
    if declared.compare_with and declared.compare_with not in environments:
        raise ConfigError(
            f"{at}.compare_with: there is no environment {declared.compare_with!r}",
            hint=config.nearest(declared.compare_with, environments),
        )
    if declared.compare_with and declared.production:
        raise ConfigError(f"{at}: found compare_with and production; production is what one of them says")
    if declared.compare_with == name:
        raise ConfigError(f"{at}.compare_with: it is compared with itself")
    for fact, value in declared.declared.items():
        if fact in _WORDS and value not in _WORDS[fact]:
            raise ConfigError(
                f"{at}.declared: {fact}: found {value!r}, allowed: {', '.join(_WORDS[fact])}",
                hint=config.nearest(value, _WORDS[fact]),
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
        raise ConfigError(f"{at}: this is no actor: {error}") from None


def require_reason(at: str, reason: str) -> None:
    """Refuse a reason for N/A that is not objective, or is one for Not run.

    :raises ConfigError: naming what is wrong with it.
    """
    if "\n" in reason:
        raise ConfigError(f"{at}: a reason for N/A is one line")
    if pending := NOT_YET.search(reason):
        raise ConfigError(
            f"{at}: found {reason!r}: what is {' '.join(pending[0].lower().split())!r} is Not run, and not N/A",
            hint="leave not_applicable out, and it is Not run until it is exercised",
        )
    if is_vague(reason) or len(reason.split()) < FEWEST_WORDS:
        raise ConfigError(
            f"{at}: found {reason!r}, needed an objective reason in one line, tied to what the host is",
            hint="such as: no background job executor in this deployment",
        )
