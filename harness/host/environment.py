"""An operator's environment: its names turned into connection strings and callers, and what it says of itself."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from harness.database import Client, SqlError, confidential, connect_to, describe
from harness.errors import ConfigError, DatabaseError, HarnessError, UsageError
from harness.host.declared import Caller, EnvironmentDeclaration, PathDeclaration
from harness.host.site import Site
from harness.lab.services import postgres_settings
from harness.model import EnvironmentEvidence, EvidenceClass
from harness.recognition import contradictions, recognise
from harness.redaction import Redactor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.audit.target import AuditTarget

_VARIABLE = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)")
#: headers and fields that are secrets, whatever they look like
_SECRET_NAME = re.compile(r"(?i)passw|secret|token|authorization|cookie|api-?key|credential")
_CONNECT_S = 10


class Environment(Struct, frozen=True, kw_only=True):
    """An environment that can be asked. Its text shows no secret."""

    name: str
    declared: EnvironmentDeclaration
    dsn: str
    direct: str | None
    console: str | None
    trail: str
    base_url: str
    callers: tuple[Caller, ...]
    versions: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"Environment({self.name!r})"

    def client(self) -> Client:
        """Connect through the chain as the application does."""
        return connect_to(self.dsn, connect_timeout_s=_CONNECT_S)

    def owner(self) -> Client:
        """Connect past the pooler where there is a way, else through it."""
        return connect_to(self.direct or self.dsn, connect_timeout_s=_CONNECT_S)

    def reader(self) -> Client:
        """Connect as who may read the audit trail."""
        return connect_to(self.trail, connect_timeout_s=_CONNECT_S)

    def site(self, target: AuditTarget) -> Site:
        return Site(
            name=self.name,
            evidence_class=EvidenceClass.HOST,
            base_url=self.base_url,
            callers=self.callers,
            target=target,
            trail=self.reader,
            application=self.client,
        )


def resolve(
    name: str, declared: EnvironmentDeclaration, variables: Mapping[str, str], redactor: Redactor
) -> Environment:
    """Look up what an environment names by environment variables; what is secret is told to the redactor.

    :raises UsageError: naming every variable that is not set.
    :raises ConfigError: for what is no connection string; it is not repeated.
    """
    texts = [
        *(
            each
            for each in (declared.dsn, declared.direct, declared.console, declared.trail, declared.base_url)
            if each
        ),
        *(value for caller in declared.callers for value in caller.headers.values()),
        *declared.versions.values(),
    ]
    wanted = dict.fromkeys(found for text in texts for found in _VARIABLE.findall(text))
    if missing := [each for each in wanted if not variables.get(each)]:
        raise UsageError(
            f"the environment {name} is named by environment variables that are not set: {', '.join(missing)}",
            where="harness.toml",
            hint=f"export {missing[0]}=…",
        )

    def looked_up(text: str) -> str:
        return _VARIABLE.sub(lambda found: variables[found[1]], text)

    strings = {
        key: looked_up(each) for key in ("dsn", "direct", "console", "trail") if (each := getattr(declared, key))
    }
    for key, string in strings.items():
        try:
            redactor.learn(*confidential(string))
        except ConfigError as error:
            raise ConfigError(error.what, where=f"environments.{name}.{key}", hint=error.hint) from None
    base_url = looked_up(declared.base_url)
    if base_url and not urlsplit(base_url).hostname:
        raise ConfigError("this is no address of a host: needed https://…", where=f"environments.{name}.base_url")
    if declared.base_url.startswith("env:"):  # who hides it does not want to see it in a report
        redactor.learn(base_url, urlsplit(base_url).netloc)
    callers = []
    for caller in declared.callers:
        for value in caller.headers.values():
            redactor.learn(
                *(part for found in _VARIABLE.findall(value) for part in (variables[found], *variables[found].split()))
            )
        callers.append(replace(caller, headers={key: looked_up(value) for key, value in caller.headers.items()}))
    return Environment(
        name=name,
        declared=declared,
        dsn=strings["dsn"],
        direct=strings.get("direct"),
        console=strings.get("console"),
        trail=strings.get("trail") or strings.get("direct") or strings["dsn"],
        base_url=base_url,
        callers=tuple(callers),
        versions={key: looked_up(each) for key, each in declared.versions.items()},
    )


def refuse_secrets(environments: Mapping[str, EnvironmentDeclaration], paths: tuple[PathDeclaration, ...]) -> None:
    """Refuse a secret that is written in the file instead of being named by an environment variable.

    :raises ConfigError: naming the key, and never repeating the value.
    """
    redact = Redactor()
    for where, key, value in [
        *(each for name, declared in environments.items() for each in _texts(declared, f"environments.{name}")),
        *(each for path in paths for each in _texts(path, f"paths.{path.name}")),
    ]:
        named = _VARIABLE.search(value) or re.fullmatch(r"\{[\w.-]+\}", value)
        if not named and (redact(value) != value or (_SECRET_NAME.search(key) and value)):
            raise ConfigError(
                f"{where}: a secret is written in the file, and must not be",
                where="harness.toml",
                hint=f'{key} = "env:NAME", and the value in that environment variable',
            )


def _texts(declared: Any, where: str) -> list[tuple[str, str, str]]:
    """Return every text below a declaration: its place, the last part of that, and the text."""
    found: list[tuple[str, str, str]] = []

    def walk(value: Any, at: str) -> None:
        if isinstance(value, str):
            found.append((at, at.rpartition(".")[2], value))
        elif isinstance(value, dict):
            for key, each in value.items():
                walk(each, f"{at}.{key}")
        elif isinstance(value, list):
            for each in value:
                walk(each, at)

    walk(msgspec.to_builtins(declared), where)
    return found


def look_at(environment: Environment, redactor: Redactor) -> EnvironmentEvidence:
    """Find out what the environment is, with nothing but its addresses. Reads only, and ends with its deadline.

    What cannot be found is noted; an environment that nobody gets to is told as such, with the reason.
    """
    declared = environment.declared
    evidence = EnvironmentEvidence(
        name=environment.name,
        reached=False,
        application=declared.application,
        pools=declared.pools,
        prepare=declared.prepare,
        versions=environment.versions,
        production=declared.production.facts if declared.production else {},
        declared_by=declared.production.declared_by if declared.production else "",
    )
    try:
        found = recognise(
            environment.dsn,
            direct=environment.direct,
            console=environment.console,
            deadline_s=declared.deadline_s,
            redactor=redactor,
        )
    except HarnessError as error:
        return replace(evidence, reason=error.what)
    wrong = contradictions(found, declared.declared)
    settings, notes = _settings(environment)
    return replace(
        evidence, reached=True, findings=found.findings, contradictions=wrong, settings=settings, notes=notes
    )


def _settings(environment: Environment) -> tuple[dict[str, str], tuple[str, ...]]:
    try:
        with environment.client() as client:
            return postgres_settings(client), ()
    except (SqlError, DatabaseError) as error:
        return {}, (f"{environment.name}: the server's settings could not be read: {describe(error)}",)
