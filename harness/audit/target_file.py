"""The TOML description of an audit trail: its claims, its convention for actors, and the SQL to use it.

The comments of these structs are the documentation of the keys: docs/audit-targets.md is generated from them.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from msgspec import Meta, Struct

from harness.audit.actor_convention import ActorConvention
from harness.model import KnownIssue

_Statement = Annotated[str, Meta(min_length=1)]
#: the properties and the claims of a target file; a test compares them with the enumerations
_Omitted = Literal["actor", "transaction-id", "inserts", "updates", "deletes", "image", "order"]
_Claim = Literal[
    "changed-fields",
    "changed-from",
    "actor-types",
    "truncate",
    "partitions",
    "actions",
    "coverage",
    "redaction",
    "retention",
    "export",
    "contract-tables",
]
_Table = Annotated[str, Meta(pattern=r"^[a-z_][a-z0-9_$]*\.[a-z_][a-z0-9_$]*$")]


class TrailFeature(StrEnum):
    """Features that a trail may claim, beyond capturing every change once, correctly and with its actor."""

    #: `changed_fields` of an update names exactly the columns whose stored value changed, in any order. A value that is
    #: equal and spelled differently, such as 1.0 and 1.00, may be named. NULL for an insert, a delete, and an update
    #: that changes nothing
    CHANGED_FIELDS = "changed-fields"
    #: `changed_from` of an update holds the values before, of the columns that changed, for tables that are attached
    #: with `attach_with_changed_from`. NULL for other tables and operations
    CHANGED_FROM = "changed-from"
    #: each of the types user, admin, service_account, job, system and anonymous is kept as declared; anonymous has no
    #: id, also where one is declared. A write with an invalid actor fails, with an SQLSTATE that begins with 22 or P0,
    #: or with 23514
    ACTOR_TYPES = "actor-types"
    #: one change with the operation truncate for each captured table that a TRUNCATE empties, also by CASCADE, with its
    #: actor; without a row after the change. A partition that is truncated alone counts, too
    TRUNCATE = "truncate"
    #: rows of a partitioned table are captured once, whether the root, a leaf or a partition between them is written
    #: to, leaves that are created later included: all under the name of the root, or all under that of their leaf. A
    #: row that moves to another leaf is a delete and an insert, or an update
    PARTITIONS = "partitions"
    #: `record_action` runs in an audited transaction, as the application. `actions` returns the action, and `action_id`
    #: of the transaction's changes refers to it. Name, job and actor come back as recorded, and so does the
    #: correlation, possibly without blanks around it. An action that is rolled back leaves nothing
    ACTIONS = "actions"
    #: a table is captured exactly when `coverage` says so: not without a trigger, with a disabled one, or because
    #: another schema has a table of that name
    COVERAGE = "coverage"
    #: an excluded value is nowhere in the trail, and a masked one is replaced by the placeholder, in the row after the
    #: change and in prior values. A rule for a missing column is refused when it is attached, or when the table is
    #: written to
    REDACTION = "redaction"
    #: `purge` deletes the changes before the cutoff, keeps the change that was captured exactly then, and may be
    #: repeated. It deletes a transaction's record only once none of its changes is left, and no action of a change that
    #: it keeps. The application cannot purge
    RETENTION = "retention"
    #: `export` returns the changes that earlier exports do not have, once and unchanged, in the order of `changes`;
    #: also those of a transaction that was open during an earlier export. It may hold changes back while an older
    #: transaction is open
    EXPORT = "export"
    #: `public.audit_transactions` has one record for each transaction, with the columns txid, occurred_at and
    #: actor_ref. The first write decides the transaction's actor; a record of another cluster with the same txid is
    #: not reused
    CONTRACT_TABLES = "contract-tables"
    #: the Python library and the objects of the reference layer; no other trail can claim it
    LIBRARY = "library"

    @property
    def unclaimed(self) -> str:
        """Return the reason for N/A when a target does not claim the feature."""
        return f"the audit target does not claim {self.promise}"

    @property
    def promise(self) -> str:
        """What a trail claims with the feature, as an infinitive."""
        return _MEANINGS[self]


_MEANINGS = {
    TrailFeature.CHANGED_FIELDS: "to name the columns that an update changed",
    TrailFeature.CHANGED_FROM: "to keep prior values",
    TrailFeature.ACTOR_TYPES: "to distinguish actor types",
    TrailFeature.TRUNCATE: "to record a TRUNCATE",
    TrailFeature.PARTITIONS: "to capture partitioned tables",
    TrailFeature.ACTIONS: "to record actions",
    TrailFeature.COVERAGE: "to report which tables it captures",
    TrailFeature.REDACTION: "to redact",
    TrailFeature.RETENTION: "to purge expired changes",
    TrailFeature.EXPORT: "to export changes that earlier exports do not have",
    TrailFeature.CONTRACT_TABLES: "to keep its transactions in the contract's table, public.audit_transactions",
    TrailFeature.LIBRARY: "to be the reference layer, whose own functions this check exercises",
}
#: the statements that a claim requires, because its checks run them
NEEDS_STATEMENT = {
    TrailFeature.CHANGED_FROM: ("attach_with_changed_from",),
    TrailFeature.ACTIONS: ("record_action", "actions"),
    TrailFeature.COVERAGE: ("coverage",),
    TrailFeature.REDACTION: ("attach_redacted",),
    TrailFeature.RETENTION: ("purge", "age"),
    TrailFeature.EXPORT: ("export",),
}


#: the statements that are about one table
ABOUT_A_TABLE = ("attach", "attach_with_changed_from", "attach_redacted", "detach", "grant")
#: placeholders that stand for SQL texts: arrays of texts, and a text literal
REDACTION_TEXTS = {"attach_redacted": ("exclude", "mask", "placeholder")}


class Recorded(StrEnum):
    """Properties that every trail is expected to have, unless its target file omits them."""

    #: each change has the actor that the application declared, or NULL where it declared none
    ACTOR = "actor"
    #: a write without an actor succeeds; with `required = true` in `[actor]` it fails instead, and leaves neither a row
    #: nor a change. A target file cannot omit it
    UNDECLARED = "undeclared"
    #: all changes of a transaction have the same text, number or UUID, and those of other transactions another one,
    #: also in a database that is restored from a dump: the server's own number alone is assigned there once more, so
    #: the id has something else in it, such as the time at which the transaction began
    TRANSACTION_ID = "transaction-id"
    #: each inserted row is a change, whatever inserts it: INSERT, COPY, MERGE, a function, a trigger or a cascade
    INSERTS = "inserts"
    #: each updated row is a change, also the second update of a row in one statement or transaction
    UPDATES = "updates"
    #: each deleted row is a change, also by a cascade
    DELETES = "deletes"
    #: `data_after` of an insert and an update is the stored row, as the server has it after all triggers
    IMAGE = "image"
    #: `changes` returns the changes of a row in the order in which they were made, also when another trigger changes
    #: the row once more: PostgreSQL fires triggers in the order of their names
    ORDER = "order"
    #: a trail has it when its changes have the column captured_at; a target file cannot omit it
    TIME = "time"

    @property
    def check(self) -> str:
        """The id of the check that shows the property; "" for the time, which no trail needs."""
        return "" if self is Recorded.TIME else f"trail.{self.value}"

    @property
    def may_be_omitted(self) -> bool:
        """Whether a target file can omit the property."""
        return self not in {Recorded.UNDECLARED, Recorded.TIME}

    @property
    def meaning(self) -> str:
        """What a trail records with the property, as a noun."""
        return _RECORDED[self][0]

    @property
    def omitted(self) -> str:
        """Return the reason for N/A when the target file omits the property."""
        if self is Recorded.TIME:
            return "the audit target's changes have no column captured_at"
        return f"the trail does not record {self.meaning}, by design (`omits` of the target file)"

    @property
    def missing(self) -> str:
        """Return the reason for N/A when the trial did not find the property."""
        if self is Recorded.UNDECLARED:
            return f"the trail treats a write without an actor in another way than `[actor]` says: see {self.check}"
        return f"the trail records {_RECORDED[self][1]}: see {self.check}"


_RECORDED = {
    Recorded.ACTOR: ("who made a change", "no actor"),
    Recorded.UNDECLARED: ("a write without an actor", "no such write"),
    Recorded.TRANSACTION_ID: ("which changes share a transaction", "no transaction id"),
    Recorded.INSERTS: ("inserts", "no inserts"),
    Recorded.UPDATES: ("updates", "no updates"),
    Recorded.DELETES: ("deletes", "no deletes"),
    Recorded.IMAGE: ("the row after the change", "no row after the change"),
    Recorded.ORDER: ("the order of changes", "changes in no order"),
    Recorded.TIME: ("the time of a change", "no time"),
}


class Statements(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The SQL that attaches and reads the trail.

    `{role}` and `{owner}` work in every statement, and `{table}`, `{schema}` and `{name}` in those about one table; see
    `harness/audit/placeholders.py`. A statement with parameters is a single statement, in which a percent sign is
    written twice.
    """

    #: attaches capture to a table
    attach: _Statement
    #: one row for each change, in the order of capture. Needed columns: id, transaction_id, table_schema, table_name,
    #: table_pk, op, data_after and actor. table_pk, data_after and changed_from are objects of column to value (with
    #: JSON types, or all values as texts), and actor is an object with type and id; each is json or jsonb, or NULL. op
    #: is insert, update, delete or truncate, in upper or lower case. Further columns: txid, changed_fields (an array of
    #: texts), changed_from, action_id, captured_at (timestamptz: the trail then records times), and position (any value
    #: that sorts: the order of the changes of several tables)
    changes: _Statement
    #: rows of schema and name: the tables where the trail's rows are, in addition to the key `tables`. It runs after
    #: the attachment of tables, so a history table of each audited table can be among them
    tables: str = ""
    #: rows of schema, name and any further names, such as the history table: `changes` then runs once for each row,
    #: with the row's names as placeholders: `{name}`, `{history}`, `{history_literal}`
    each: str = ""
    #: grants the application role the rights that the trail needs; it runs again after each attachment
    grant: str = ""
    #: counts the transactions' records, including those without a change
    transactions: str = ""
    #: stops the capture of a table
    detach: str = ""
    #: attaches capture that also keeps prior values
    attach_with_changed_from: str = ""
    #: attaches capture that leaves out the columns of `{exclude}` and masks those of `{mask}`
    attach_redacted: str = ""
    #: parameters `%(name)s`, `%(correlation_id)s`, and `%(job_id)s` for a trail that keeps the job of an action
    record_action: str = ""
    #: rows of id, name and correlation_id; the `action_id` of a change refers to the id. Further columns: job_id, and
    #: actor, like that of `changes`
    actions: str = ""
    #: rows of schema, table, problem for every table, captured or not; a problem of NULL means captured
    coverage: str = ""
    #: parameter `%(cutoff)s` of the type timestamptz: deletes changes captured before it. A procedure may commit
    purge: str = ""
    #: parameter `%(age)s` of the type interval: makes the whole trail older by it, to test the purge
    age: str = ""
    #: parameter `%(since)s`: the cursor of the last export, as text, or NULL for the first one; write
    #: `%(since)s::text`. The columns of `changes`, and cursor: where the next export continues, the same in all rows
    export: str = ""
    #: rows of name and definition of the capture functions; for controls of the reference layer
    capture_functions: str = ""


class TrailLimit(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A limit that the trail documents. A check that observes it is OK, and shows it as a documented limit."""

    #: the id of the check that observes it
    check: Annotated[str, Meta(pattern=r"^[a-z]+\.[a-z0-9-]+$")]
    #: the limit, in one sentence
    says: Annotated[str, Meta(min_length=1)]
    #: where it is documented: an address, or a place below `documentation`, such as `#truncate`
    where: Annotated[str, Meta(min_length=1)]


class TargetFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An audit target as its TOML file describes it."""

    #: one line for `harness list targets`
    summary: Annotated[str, Meta(min_length=1)]
    #: where the trail is documented: a path or an address. The places of its limits may begin with it; a limit counts
    #: as documented only by an entry of its own in `limits`
    documentation: str = ""
    #: SQL files, relative to this file, that run once in a database, in one transaction
    install: tuple[str, ...] = ()
    #: who runs them: the owner of the audited tables, or a superuser, as an event trigger needs it
    install_as: Literal["owner", "superuser"] = "owner"
    #: tables of the trail, as schema.table; only the capture may write to them. They exist after the installation.
    #: `statements.tables` finds those whose names need quotes
    tables: tuple[_Table, ...] = ()
    #: what the trail does not record, by design: see the properties
    omits: tuple[_Omitted, ...] = ()
    #: what the trail does in addition to recording changes: see the claims
    claims: tuple[_Claim, ...] = ()
    #: columns of audited tables that belong to the trail: no comparison of rows includes them
    own_columns: tuple[Annotated[str, Meta(min_length=1)], ...] = ()
    #: whether capture has to be attached again after DDL on an audited table
    reattach: bool = False
    #: statements that switch capture off on purpose, for whoever may run them: the application must not be able to
    switches: tuple[_Statement, ...] = ()
    #: left out exactly when `omits` has "actor"
    actor: ActorConvention | None = None
    statements: Statements
    limits: tuple[TrailLimit, ...] = ()
    #: Issues that the trail's owner accepts until a date, like `known_issues` in harness.toml
    accepted: tuple[KnownIssue, ...] = ()
