"""An operator's environment: its names turned into connection strings and callers, and what it says of itself."""

from __future__ import annotations

import contextlib
import hashlib
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from msgspec import Struct
from msgspec.structs import replace

from harness.database import Client, SqlError, confidential, connect_to, describe
from harness.errors import ConfigError, DatabaseError, HarnessError
from harness.host.declarations import Caller, EnvironmentDeclaration
from harness.host.env_secrets import fill_in, require_set, variables_of
from harness.host.site import Site
from harness.lab.services import postgres_settings
from harness.model import EnvironmentEvidence, EvidenceClass
from harness.recognition.contradictions import contradictions
from harness.recognition.recognise import recognise
from harness.redaction import Redactor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.audit.target import AuditTarget
    from harness.redaction import Redactor

_STRINGS = ("dsn", "direct", "console", "trail")
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
    :raises ConfigError: for what is no connection string or no address; it is not repeated.
    """
    require_set(variables_of(declared), variables, f"the environment {name}")
    strings = {key: fill_in(each, variables) for key in _STRINGS if (each := getattr(declared, key))}
    for key, string in strings.items():
        try:
            redactor.learn(*confidential(string))
        except ConfigError as error:
            raise ConfigError(error.what, where=f"environments.{name}.{key}", hint=error.hint) from None
    for caller in declared.callers:
        for variable in variables_of(caller):
            redactor.learn(variables[variable], *variables[variable].split())
    return Environment(
        name=name,
        declared=declared,
        dsn=strings["dsn"],
        direct=strings.get("direct"),
        console=strings.get("console"),
        trail=strings.get("trail") or strings.get("direct") or strings["dsn"],
        base_url=_base_url(name, declared.base_url, variables, redactor),
        callers=tuple(
            replace(caller, headers={key: fill_in(value, variables) for key, value in caller.headers.items()})
            for caller in declared.callers
        ),
        versions={key: fill_in(each, variables) for key, each in declared.versions.items()},
    )


def _base_url(name: str, told: str, variables: Mapping[str, str], redactor: Redactor) -> str:
    """Return the host's address. Who hides it, or a part of it, does not want to see it in a report."""
    if not told:
        return ""
    base_url = fill_in(told, variables)
    try:
        parts = urlsplit(base_url)
        host = parts.hostname or ""
        beyond = parts.username or parts.password or parts.query or parts.fragment
        _ = parts.port
    except ValueError:
        host = ""
    if not host or parts.scheme not in {"http", "https"} or beyond:
        raise ConfigError(
            "this is no address of a host: needed https://name, without a login, a query or a fragment",
            where=f"environments.{name}.base_url",
        )
    if base_url != told:
        redactor.learn(base_url, parts.netloc, host)
    return base_url


def look_at(environment: Environment, redactor: Redactor, declared_as: str = "") -> EnvironmentEvidence:
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
        declared_as=declared_as,
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
    settings, is_a_lab, notes, database = _settings(environment)
    return replace(
        evidence,
        reached=True,
        database=database,
        findings=found.findings,
        contradictions=wrong,
        settings=settings,
        is_a_lab=is_a_lab,
        notes=notes,
    )


def _settings(environment: Environment) -> tuple[dict[str, str], bool, tuple[str, ...], str]:
    """Return the server's settings, whether the role is one that the harness makes, what was left, and which it is."""
    try:
        with environment.client() as client:
            is_a_lab = str(client.value("SELECT current_user")).startswith("harness_")
            left = client.rows(
                "SELECT c.oid::regclass::text FROM pg_catalog.pg_class c WHERE c.relkind = 'r' "
                "AND c.relnamespace = to_regnamespace(%s) AND starts_with(c.relname, 'harness_canary_')",
                [environment.declared.scratch_schema or "none"],
            )
            notes = tuple(
                f"{environment.name}: the table {name} was left by a run that was killed, or is of one that goes on"
                for (name,) in left
            )
            return postgres_settings(client), is_a_lab, notes, _database(client)
    except (SqlError, DatabaseError) as error:
        return {}, False, (f"{environment.name}: the server's settings could not be read: {describe(error)}",), ""


def _database(client: Client) -> str:
    """Return a digest of which database this is: a copy of a cluster has its identifier, and another address."""
    with contextlib.suppress(SqlError):
        known = client.rows(
            "SELECT system_identifier, inet_server_addr()::text, inet_server_port(), current_database() "
            "FROM pg_control_system()"
        )
        return hashlib.sha256(repr(known).encode()).hexdigest()[:16]
    return ""
