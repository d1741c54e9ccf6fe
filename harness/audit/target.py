"""The audit trail under test: how it is installed, put on a table, and read.

Suites never name the trail's objects; they ask the target. The default is the reference layer. Any other trail is a
TOML file (:class:`TargetFile`); what it does not claim to do is not judged, and what it claims is.
"""

from __future__ import annotations

import hashlib
import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from uuid import UUID

import msgspec
from msgspec import Meta, Struct

from harness import config
from harness.audit.installing import FILES
from harness.database import Client, SqlError, describe, fetch, quote_literal, run_files
from harness.errors import ConfigError, DatabaseError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harness.audit.actor import Actor

_SHIPPED = Path(__file__).parent / "targets"
_Statement = Annotated[str, Meta(min_length=1)]
_Table = Annotated[str, Meta(pattern=r"^[a-z_][a-z0-9_$]*\.[a-z_][a-z0-9_$]*$")]
#: becomes the name of a folder, beside that of the runs
_NAME = re.compile(r"^(?!runs$)[A-Za-z0-9][A-Za-z0-9_-]*$")


class Feature(StrEnum):
    """What a trail may claim beyond capturing every change once, true, and attributed."""

    CHANGED_FIELDS = "changed-fields"
    CHANGED_FROM = "changed-from"
    ACTOR_TYPES = "actor-types"
    TRUNCATE = "truncate"
    PARTITIONS = "partitions"
    ACTIONS = "actions"
    COVERAGE = "coverage"
    REDACTION = "redaction"
    RETENTION = "retention"
    CONTRACT_TABLES = "contract-tables"
    #: only the reference layer's: its Python library and its own objects
    LIBRARY = "library"

    @property
    def unclaimed(self) -> str:
        """Return the sentence for a target that does not claim it."""
        return f"the audit target does not claim {_MEANINGS[self]}"


_MEANINGS = {
    Feature.CHANGED_FIELDS: "to name the columns that an update changed",
    Feature.CHANGED_FROM: "to keep prior values",
    Feature.ACTOR_TYPES: "to tell types of actors apart",
    Feature.TRUNCATE: "to record a TRUNCATE",
    Feature.PARTITIONS: "to capture partitioned tables",
    Feature.ACTIONS: "to record actions",
    Feature.COVERAGE: "to tell which tables it captures",
    Feature.REDACTION: "to redact",
    Feature.RETENTION: "to delete what is too old",
    Feature.CONTRACT_TABLES: "to keep its transactions in the contract's table, public.audit_transactions",
    Feature.LIBRARY: "to be the reference layer, whose own functions this check exercises",
}
#: what a claim is worth nothing without
_NEEDS_STATEMENT = {
    Feature.CHANGED_FROM: ("attach_with_changed_from",),
    Feature.ACTIONS: ("record_action",),
    Feature.COVERAGE: ("coverage",),
    Feature.REDACTION: ("attach_redacted",),
    Feature.RETENTION: ("purge", "age"),
}


class ActorConvention(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an application says who acts."""

    setting: Annotated[str, Meta(pattern=r"^[a-z_][a-z0-9_]*\.[a-z_][a-z0-9_]*$")]
    #: what the setting holds: {"type": …, "id": …}, or the bare id
    value: Literal["json", "id"] = "json"
    #: set in each transaction, before its first write; or for the session, before the transaction
    scope: Literal["transaction", "session"] = "transaction"

    def spell(self, actor: Actor) -> str:
        return actor.setting if self.value == "json" else actor.id or ""


class Statements(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """SQL that speaks to the trail.

    Attaching must be repeatable. `{table}` stands for a table as SQL spells it, with its schema, `{name}` for its
    name alone, `{table_literal}` for
    the same as a text, `{role}` and `{role_literal}` for the application's role. `{exclude}`, `{mask}` are arrays of
    texts, `{placeholder}` is a text.
    """

    attach: _Statement
    #: returns the columns of :class:`Change` by their names, in the order of capture; see `REQUIRED`. table_pk,
    #: data_after, changed_from and actor are json or jsonb, or NULL; changed_fields is an array of texts in any order
    changes: _Statement
    grant: str = ""
    #: counts the records of transactions, those without a change included
    transactions: str = ""
    detach: str = ""
    attach_with_changed_from: str = ""
    attach_redacted: str = ""
    #: parameters `%(name)s`, `%(correlation_id)s`
    record_action: str = ""
    #: rows of schema, table, problem for every table, captured or not; NULL says that it is captured
    coverage: str = ""
    # (a percent sign in a statement with parameters is written twice)
    #: parameter `%(cutoff)s`: deletes what was captured before it
    purge: str = ""
    #: parameter `%(age)s`: an interval by which all of the trail grows older, for trying the purge
    age: str = ""
    #: rows of name and definition of the functions that capture; for controls of the reference layer
    capture_functions: str = ""


class TargetFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An audit target as its TOML file describes it."""

    summary: Annotated[str, Meta(min_length=1)]
    #: SQL files beside it that the owner runs once in a database
    install: tuple[str, ...] = ()
    #: tables of the trail, as schema.table: nobody but the capture may write to them
    tables: Annotated[tuple[_Table, ...], Meta(min_length=1)]
    actor: ActorConvention
    statements: Statements
    claims: tuple[Feature, ...] = ()
    #: where the trail's own limits are documented: a path or an address
    documentation: str = ""


class Change(Struct, frozen=True, kw_only=True):
    """One row change, in the canonical columns that every target's query maps to."""

    id: str
    transaction_id: str | None
    table_schema: str
    table_name: str
    #: the key's columns to their values
    table_pk: Any
    #: insert, update, delete or truncate
    op: str
    #: the row after the change, column to value; None after a delete
    data_after: Any
    #: {"type": …, "id": …}, or None
    actor: Any
    txid: int | None = None
    changed_fields: tuple[str, ...] | None = None
    changed_from: Any = None
    action_id: str | None = None


_COVERAGE_COLUMNS = 3
REQUIRED = ("id", "transaction_id", "table_schema", "table_name", "table_pk", "op", "data_after", "actor")


class AuditTarget(Struct, frozen=True, kw_only=True):
    """How an audit trail is installed, attached and read."""

    name: str
    summary: str
    #: where a mistake in it is to be looked for
    where: str
    #: changes whenever what decides a result does
    fingerprint: str
    install: tuple[Path, ...]
    tables: tuple[str, ...]
    actor: ActorConvention
    statements: Statements
    claims: frozenset[Feature]
    documentation: str

    @property
    def identity(self) -> str:
        """Return what evidence about this target is filed under: its name and what it is made of."""
        return f"{self.name} {self.fingerprint}"

    @property
    def is_reference(self) -> bool:
        return Feature.LIBRARY in self.claims

    def install_in(self, owner: Client) -> None:
        """Install the trail.

        :raises DatabaseError: naming file, line and SQLSTATE.
        """
        run_files(owner, self.install)

    def verify_in(self, owner: Client) -> None:
        """Try what the target says on an empty trail, before any check relies on it.

        :raises DatabaseError: naming the statement that does not run, or what it lacks.
        """
        for table in self.tables:
            if owner.value("SELECT to_regclass(%s)", [table]) is None:
                raise DatabaseError(
                    f"tables: there is no table {table} once the trail is installed", where=self._at("tables")
                )
        names = self._try(owner, "changes")
        if missing := [each for each in REQUIRED if each not in names]:
            raise DatabaseError(
                f"statements.changes: it returns no column {', '.join(missing)}",
                where=self._at("changes"),
                hint=f"name them with AS; found: {', '.join(names)}",
            )
        if self.statements.coverage and len(found := self._try(owner, "coverage")) != _COVERAGE_COLUMNS:
            raise DatabaseError(
                f"statements.coverage: it returns {len(found)} columns, needed schema, table, problem",
                where=self._at("coverage"),
            )
        with owner.transaction(force_rollback=True):
            if self.statements.transactions and not isinstance(owner.value(self.statements.transactions), int):
                raise DatabaseError("statements.transactions: it returns no number", where=self._at("transactions"))
            for name, given in (("age", {"age": "1 day"}), ("purge", {"cutoff": "2000-01-01 00:00:00+00"})):
                if statement := getattr(self.statements, name):
                    with self._explained(name):
                        fetch(owner, statement, given)
            self._try_attaching(owner)

    def _try_attaching(self, owner: Client) -> None:
        """Try the ways to attach on a table of the target's own making; what is done here is undone."""
        owner.run("CREATE TABLE public.tried (id int PRIMARY KEY, a text, b text)")
        if self.statements.attach_with_changed_from:
            with self._explained("attach_with_changed_from"):
                self.attach(owner, "public.tried", changed_from=True)
        if self.statements.attach_redacted:
            with self._explained("attach_redacted"):
                for _ in range(2):
                    self.attach_redacted(owner, "public.tried", exclude=["a"], mask=["b"])

    def _try(self, owner: Client, name: str) -> list[str]:
        with self._explained(name):
            cursor = owner.execute(getattr(self.statements, name))
            return [column.name for column in cursor.description or ()]

    def _explained(self, name: str) -> _Explained:
        return _Explained(name, self._at(name))

    def _at(self, name: str) -> str:
        return config.at_key(self.where, name)

    def attach(self, owner: Client, table: str, *, changed_from: bool = False) -> None:
        """Put capture on a table, given as SQL spells it: quoted and qualified where needed.

        :raises SqlError: as the server says it.
        """
        statement = self.statements.attach_with_changed_from if changed_from else self.statements.attach
        owner.run(_filled(statement or self.statements.attach, table))

    def attach_redacted(
        self, owner: Client, table: str, *, exclude: Sequence[str], mask: Sequence[str], placeholder: str = "[REDACTED]"
    ) -> None:
        """Put capture on a table that keeps prior values and hides columns."""
        rules = {"exclude": _array(exclude), "mask": _array(mask), "placeholder": quote_literal(placeholder)}
        owner.run(_filled(self.statements.attach_redacted, table, rules))

    def detach(self, owner: Client, table: str) -> None:
        owner.run(_filled(self.statements.detach, table))

    def grant(self, owner: Client, role: str) -> None:
        """Give the application's role what the trail wants it to have.

        :raises DatabaseError: naming the statement.
        """
        if self.statements.grant:
            with self._explained("grant"):
                owner.run(self.statements.grant.replace("{role_literal}", quote_literal(role)).replace("{role}", role))

    def changes(self, admin: Client, table: str | None = None) -> list[Change]:
        """Return the captured changes in the order of their capture, of one table when it is named."""
        cursor = admin.execute(self.statements.changes)
        names = [column.name for column in cursor.description or ()]
        rows = [self._change(dict(zip(names, row, strict=True))) for row in cursor]
        return [row for row in rows if table in {None, row.table_name, f"{row.table_schema}.{row.table_name}"}]

    def _change(self, row: dict[str, Any]) -> Change:
        """Return a row in canonical form.

        :raises DatabaseError: for a column of another type than it has to have.
        """

        def column(name: str, kinds: tuple[type, ...], needed: str) -> Any:
            value = row.get(name)
            if not isinstance(value, kinds):
                raise DatabaseError(
                    f"statements.changes: {name} is {value!r}, needed {needed}", where=self._at("changes")
                )
            return value

        def text(name: str) -> str | None:
            return None if row.get(name) is None else str(row[name])

        nothing = type(None)
        column("id", (str, int, UUID), "a text, a number or a UUID that no other row has")
        fields = column("changed_fields", (list, nothing), "an array of texts, or NULL")
        return Change(
            id=str(row["id"]),
            transaction_id=text("transaction_id"),
            table_schema=column("table_schema", (str,), "a text"),
            table_name=column("table_name", (str,), "a text"),
            table_pk=column("table_pk", (dict, nothing), "a JSON object, or NULL"),
            op=column("op", (str,), "insert, update, delete or truncate").lower(),
            data_after=column("data_after", (dict, nothing), "a JSON object, or NULL"),
            actor=column("actor", (dict, str, int, float, list, bool, nothing), "JSON, or NULL"),
            txid=row.get("txid"),
            changed_fields=tuple(sorted(fields)) if fields else None,
            changed_from=column("changed_from", (dict, nothing), "a JSON object, or NULL"),
            action_id=text("action_id"),
        )

    def count_transactions(self, admin: Client) -> int:
        """Return how many transactions the trail knows."""
        if self.statements.transactions:
            return int(admin.value(self.statements.transactions))
        return len({each.transaction_id for each in self.changes(admin)})

    def coverage(self, client: Client) -> dict[str, str | None]:
        """Return schema.table to what is wrong with its capture; None is covered."""
        found = client.rows(self.statements.coverage)
        return _Coverage({f"{schema}.{table}": problem for schema, table, problem in found})

    def record_action(self, client: Client, name: str, correlation_id: str) -> None:
        """Record an action in the running transaction, as the application role."""
        fetch(client, self.statements.record_action, {"name": name, "correlation_id": correlation_id})

    def functions(self, admin: Client) -> list[tuple[str, str]]:
        """Return name and definition of the functions that capture."""
        rows: Sequence[tuple[str, str]] = admin.rows(self.statements.capture_functions)
        return list(rows)


class _Coverage(dict[str, "str | None"]):
    """What coverage tells; a table that it does not list is not said to be captured."""

    def __missing__(self, table: str) -> str:
        return "it is not listed"


class _Explained:
    """Turns an SQL error of one of the target's statements into one that names it."""

    def __init__(self, name: str, where: str) -> None:
        self._name = name
        self._where = where

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, SqlError):
            raise DatabaseError(
                f"statements.{self._name} does not run: {describe(error)}",
                where=self._where,
                hint=error.diag.message_hint or "",
            ) from None


def _filled(statement: str, table: str, more: Mapping[str, str] | None = None) -> str:
    values = {"table_literal": quote_literal(table), "table": table, "name": _own_name(table), **(more or {})}
    for name, value in values.items():
        statement = statement.replace(f"{{{name}}}", value)
    return statement


def _own_name(table: str) -> str:
    """Return the last part of a qualified name, quotes and all."""
    inside, start = False, 0
    for at, character in enumerate(table):
        if character == '"':
            inside = not inside
        elif character == "." and not inside:
            start = at + 1
    return table[start:]


def _array(values: Sequence[str]) -> str:
    return f"ARRAY[{', '.join(map(quote_literal, values))}]::text[]"


def reference_target() -> AuditTarget:
    """Return our own audit layer."""
    path = _SHIPPED / "reference.toml"
    return _built(path, "reference", FILES, claims=frozenset(Feature))


def shipped_targets() -> dict[str, str]:
    """Return the targets that come with the project, and what they are."""
    found = {path.stem: config.load(path, TargetFile).summary for path in sorted(_SHIPPED.glob("*.toml"))}
    return {"reference": found.pop("reference")} | found


def load_target(named: str, install: Sequence[str] = ()) -> AuditTarget:
    """Return a shipped target by its name, or the one that a TOML file describes.

    :param install: SQL files that install it, instead of those it names.
    :raises ConfigError: naming file, line and key.
    """
    if named == "reference":
        if install:
            raise ConfigError("the reference layer installs its own SQL", hint="leave out --audit-sql")
        return reference_target()
    if not named.endswith(".toml"):
        known = shipped_targets()
        if named not in known:
            raise ConfigError(
                f"there is no audit target {named!r}",
                hint=f"{config.nearest(named, known)}; a target of your own is a path that ends in .toml",
            )
        path = _SHIPPED / f"{named}.toml"
    else:
        path = Path(named)
        if path.stem == "reference":
            raise ConfigError("only the reference layer is called `reference`", where=named, hint="rename the file")
    return _built(path, path.stem, tuple(Path(each) for each in install))


def _built(path: Path, name: str, install: tuple[Path, ...], claims: frozenset[Feature] | None = None) -> AuditTarget:
    if not _NAME.match(name):
        raise ConfigError(
            f"the audit target {name!r} cannot be called that: its report gets a folder of that name",
            where=str(path),
            hint="letters, digits, dashes and underscores, and not `runs`",
        )
    file = config.load(path, TargetFile)
    stripped = {key: value.rstrip().rstrip(";") for key, value in msgspec.structs.asdict(file.statements).items()}
    file = msgspec.structs.replace(file, statements=Statements(**stripped))
    claimed = frozenset(file.claims) if claims is None else claims
    if claims is None and Feature.LIBRARY in claimed:
        raise ConfigError(
            "claims: only the reference layer can claim `library`", where=config.at_key(str(path), "claims")
        )
    for feature in sorted(claimed):
        for needed in _NEEDS_STATEMENT.get(feature, ()):
            if not getattr(file.statements, needed):
                raise ConfigError(
                    f"claims: {feature} is claimed, and there is no statements.{needed} to try it with",
                    where=config.at_key(str(path), "claims"),
                    hint=f"add statements.{needed}, or leave {feature} out: its checks are then N/A",
                )
    files = install or tuple(path.parent / each for each in file.install)
    if not files:
        raise ConfigError(
            "install: it names no SQL files, and none were given",
            where=str(path),
            hint="--audit-sql FILE, once for each file that installs the trail, in order",
        )
    digest = hashlib.sha256(path.read_bytes())
    for each in files:
        try:
            digest.update(each.read_bytes())
        except OSError as error:
            raise ConfigError(
                f"install: {each} cannot be read: {error.strerror}", where=config.at_key(str(path), "install")
            ) from None
    return AuditTarget(
        name=name,
        summary=file.summary,
        where=str(path),
        fingerprint=digest.hexdigest()[:16],
        install=files,
        tables=file.tables,
        actor=file.actor,
        statements=file.statements,
        claims=claimed,
        documentation=file.documentation,
    )
