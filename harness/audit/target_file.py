"""The TOML description of an audit trail: its claims, its convention for actors, and the SQL to use it."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta, Struct

if TYPE_CHECKING:
    from harness.audit.actor import Actor

_Statement = Annotated[str, Meta(min_length=1)]
_Table = Annotated[str, Meta(pattern=r"^[a-z_][a-z0-9_$]*\.[a-z_][a-z0-9_$]*$")]


class TrailFeature(StrEnum):
    """Features that a trail may claim, beyond capturing every change once, correctly and with its actor."""

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
    #: the Python library and the objects of the reference layer; no other trail can claim it
    LIBRARY = "library"

    @property
    def unclaimed(self) -> str:
        """Return the reason for N/A when a target does not claim the feature."""
        return f"the audit target does not claim {_MEANINGS[self]}"


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
    TrailFeature.CONTRACT_TABLES: "to keep its transactions in the contract's table, public.audit_transactions",
    TrailFeature.LIBRARY: "to be the reference layer, whose own functions this check exercises",
}
#: the statements that a claim requires, because its checks run them
NEEDS_STATEMENT = {
    TrailFeature.CHANGED_FROM: ("attach_with_changed_from",),
    TrailFeature.ACTIONS: ("record_action",),
    TrailFeature.COVERAGE: ("coverage",),
    TrailFeature.REDACTION: ("attach_redacted",),
    TrailFeature.RETENTION: ("purge", "age"),
}


class ActorConvention(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an application declares the actor."""

    #: the setting that holds the actor, such as `app.user_id`
    setting: Annotated[str, Meta(pattern=r"^[a-z_][a-z0-9_]*\.[a-z_][a-z0-9_]*$")]
    #: the setting's format: {"type": …, "id": …}, or the bare id
    value: Literal["json", "id"] = "json"
    #: the setting's scope: set in each transaction before its first write, or for the session before the transaction
    scope: Literal["transaction", "session"] = "transaction"

    def spell(self, actor: Actor) -> str:
        """Return the value of the setting for an actor."""
        return actor.setting if self.value == "json" else actor.id or ""


class Statements(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The SQL that installs, attaches and reads the trail.

    Attaching must be repeatable. Placeholders: `{table}` is a table's qualified SQL identifier, `{table_literal}` the
    same as a text literal, `{name}` its unqualified identifier; `{role}` and `{role_literal}` are the application
    role; `{exclude}` and `{mask}` are arrays of texts, and `{placeholder}` is a text literal.
    """

    #: attaches capture to a table
    attach: _Statement
    #: returns the columns of :class:`Change` by their names, in the order of capture; see `REQUIRED`. table_pk,
    #: data_after, changed_from and actor are json or jsonb, or NULL; changed_fields is an array of texts in any order
    changes: _Statement
    #: grants the application role the rights that the trail needs
    grant: str = ""
    #: counts the transactions' records, including those without a change
    transactions: str = ""
    #: stops the capture of a table
    detach: str = ""
    #: attaches capture that also keeps prior values
    attach_with_changed_from: str = ""
    #: attaches capture that leaves out the columns of `{exclude}` and masks those of `{mask}`
    attach_redacted: str = ""
    #: parameters `%(name)s`, `%(correlation_id)s`
    record_action: str = ""
    #: rows of id, name, correlation_id and job_id; the `action_id` of a change refers to the id
    actions: str = ""
    #: rows of schema, table, problem for every table, captured or not; a problem of NULL means captured
    coverage: str = ""
    # (in a statement with parameters, write a percent sign twice)
    #: parameter `%(cutoff)s`: deletes changes captured before it
    purge: str = ""
    #: parameter `%(age)s`: an interval; makes the whole trail older by it, to test the purge
    age: str = ""
    #: rows of name and definition of the capture functions; for controls of the reference layer
    capture_functions: str = ""


class TargetFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An audit target as its TOML file describes it."""

    #: one line for `harness list targets`
    summary: Annotated[str, Meta(min_length=1)]
    #: SQL files, relative to this file, that the owner runs once in a database
    install: tuple[str, ...] = ()
    #: tables of the trail, as schema.table; only the capture may write to them
    tables: Annotated[tuple[_Table, ...], Meta(min_length=1)]
    actor: ActorConvention
    statements: Statements
    claims: tuple[TrailFeature, ...] = ()
    #: where the trail's own limits are documented: a path or an address
    documentation: str = ""
