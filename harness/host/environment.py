"""An operator's environment: resolves the variables that it names, and recognises its chain."""

from __future__ import annotations

import contextlib
import hashlib
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from msgspec import Struct
from msgspec.structs import replace

from harness.database import Client, SqlError, address_of, confidential, connect_to, describe, observing, quote_name
from harness.errors import ConfigError, DatabaseError, HarnessError
from harness.host.declarations import Caller, EnvironmentDeclaration
from harness.host.env_secrets import fill_in, require_set, variables_of
from harness.host.journal import Journal
from harness.host.site import Site
from harness.lab.effective import postgres_settings
from harness.model import EnvironmentEvidence, EvidenceClass
from harness.recognition.contradictions import contradictions
from harness.recognition.recognise import recognise

if TYPE_CHECKING:
    from collections.abc import Mapping
    from threading import Event

    from harness.audit.target import AuditTarget
    from harness.redaction import Redactor

_CONNECTION_STRINGS = ("dsn", "direct", "console", "trail")
_CONNECT_S = 10


class Environment(Struct, frozen=True, kw_only=True):
    """An environment with its connection strings. Its `repr` shows no secret."""

    name: str
    declared: EnvironmentDeclaration
    dsn: str
    direct: str | None
    console: str | None
    trail: str
    base_url: str
    callers: tuple[Caller, ...]
    versions: dict[str, str] = {}
    #: notes what checks write
    journal: Journal | None = None

    def __repr__(self) -> str:
        return f"Environment({self.name!r})"

    @property
    def place(self) -> str:
        """A digest of the addresses, which stays the same when a password changes."""
        return hashlib.sha256(repr((address_of(self.dsn), self.base_url)).encode()).hexdigest()[:16]

    def client(self) -> Client:
        """Connect through the chain as the application does."""
        return connect_to(self.dsn, connect_timeout_s=_CONNECT_S)

    def owner(self) -> Client:
        """Connect past the pooler where `direct` is declared, otherwise through the chain."""
        return connect_to(self.direct or self.dsn, connect_timeout_s=_CONNECT_S)

    def reader(self) -> Client:
        """Connect as the role that may read the audit trail."""
        return observing(connect_to(self.trail, connect_timeout_s=_CONNECT_S))

    def roles(self) -> tuple[str, str]:
        """Return the application's role, and the owner of the audited tables: the same role if no table is declared.

        :raises SqlError: of the server.
        :raises DatabaseError: when a role cannot connect.
        """
        tables = [*self.declared.audited_tables, self.declared.canary.partition("(")[0]]
        with self.client() as client, self.reader() as reader:
            role = client.value("SELECT current_user")
            owner = reader.value(
                "SELECT pg_get_userbyid(relowner) FROM pg_catalog.pg_class WHERE oid = to_regclass(%s)",
                [quote_name(tables[0])] if tables[0] else [None],
            )
        return role, owner or role

    def site(self, target: AuditTarget) -> Site:
        return Site(
            name=self.name,
            evidence_class=EvidenceClass.HOST,
            base_url=self.base_url,
            callers=self.callers,
            target=target,
            trail=self.reader,
            application=self.client,
            journal=self.journal,
        )


def resolve(
    name: str, declared: EnvironmentDeclaration, variables: Mapping[str, str], redactor: Redactor
) -> Environment:
    """Replace the `env:NAME` references of an environment with the values of the variables.

    :param variables: name to value.
    :param redactor: learns every secret, so that no output shows it.
    :raises UsageError: naming every variable that is not set.
    :raises ConfigError: for an invalid connection string or address; the message does not repeat it.
    """
    require_set(variables_of(declared), variables, f"environment {name}")
    strings = {
        key: fill_in(reference, variables) for key in _CONNECTION_STRINGS if (reference := getattr(declared, key))
    }
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
        versions={key: fill_in(version, variables) for key, version in declared.versions.items()},
    )


def _base_url(name: str, declared: str, variables: Mapping[str, str], redactor: Redactor) -> str:
    """Return the host's address. An address that comes from a variable is redacted everywhere."""
    if not declared:
        return ""
    base_url = fill_in(declared, variables)
    try:
        parts = urlsplit(base_url)
        host = parts.hostname or ""
        excess = parts.username or parts.password or parts.query or parts.fragment
        _ = parts.port  # raises ValueError for an invalid one
    except ValueError:
        host = ""
    if not host or parts.scheme not in {"http", "https"} or excess:
        raise ConfigError(
            "invalid address, expected https://HOST without a login, a query or a fragment",
            where=f"environments.{name}.base_url",
        )
    if base_url != declared:
        redactor.learn(base_url, parts.netloc, host)
    return base_url


def look_at(
    environment: Environment, redactor: Redactor, declared_as: str = "", interrupted: Event | None = None
) -> EnvironmentEvidence:
    """Recognise an environment from its connection strings. Only reads, and ends with the declared deadline.

    :param declared_as: digest of the declaration, stored with the evidence.
    :param interrupted: ends it early when set.
    :returns: the findings; for an environment that is unreachable, the reason. Facts that cannot be found are noted.
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
            cancelled=interrupted,
        )
    except HarnessError as error:
        stopped = interrupted is not None and interrupted.is_set()
        return replace(evidence, reason="the run was interrupted" if stopped else error.what)
    settings, is_a_lab, notes, database = _settings(environment)
    return replace(
        evidence,
        reached=True,
        database=database,
        findings=found.findings,
        contradictions=contradictions(found, declared.declared),
        settings=settings,
        is_a_lab=is_a_lab,
        notes=notes,
    )


def _settings(environment: Environment) -> tuple[dict[str, str], bool, tuple[str, ...], str]:
    """Return the server's settings, whether this is a lab, notes, and the database's digest.

    It is a lab, and no staging system, when the harness created the role that connects.
    """
    try:
        with environment.client() as client:
            is_a_lab = str(client.value("SELECT current_user")).startswith("harness_")
            return postgres_settings(client), is_a_lab, (), _database(client)
    except (SqlError, DatabaseError) as error:
        return {}, False, (f"{environment.name}: the server's settings could not be read: {describe(error)}",), ""


def _database(client: Client) -> str:
    """Return a digest that identifies the database; "" when the role may not read it.

    A copied cluster has the same system identifier, so the digest includes the server's address.
    """
    with contextlib.suppress(SqlError):
        identity = client.rows(
            "SELECT system_identifier, inet_server_addr()::text, inet_server_port(), current_database() "
            "FROM pg_control_system()"
        )
        return hashlib.sha256(repr(identity).encode()).hexdigest()[:16]
    return ""
