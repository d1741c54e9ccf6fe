"""How an audit trail is described in TOML: what it claims, how it learns who acts, and the SQL that speaks to it."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta, Struct

if TYPE_CHECKING:
    from harness.audit.actor import Actor

_Statement = Annotated[str, Meta(min_length=1)]
_Table = Annotated[str, Meta(pattern=r"^[a-z_][a-z0-9_$]*\.[a-z_][a-z0-9_$]*$")]


class TrailFeature(StrEnum):
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
    TrailFeature.CHANGED_FIELDS: "to name the columns that an update changed",
    TrailFeature.CHANGED_FROM: "to keep prior values",
    TrailFeature.ACTOR_TYPES: "to tell types of actors apart",
    TrailFeature.TRUNCATE: "to record a TRUNCATE",
    TrailFeature.PARTITIONS: "to capture partitioned tables",
    TrailFeature.ACTIONS: "to record actions",
    TrailFeature.COVERAGE: "to tell which tables it captures",
    TrailFeature.REDACTION: "to redact",
    TrailFeature.RETENTION: "to delete what is too old",
    TrailFeature.CONTRACT_TABLES: "to keep its transactions in the contract's table, public.audit_transactions",
    TrailFeature.LIBRARY: "to be the reference layer, whose own functions this check exercises",
}
#: what a claim is worth nothing without
NEEDS_STATEMENT = {
    TrailFeature.CHANGED_FROM: ("attach_with_changed_from",),
    TrailFeature.ACTIONS: ("record_action",),
    TrailFeature.COVERAGE: ("coverage",),
    TrailFeature.REDACTION: ("attach_redacted",),
    TrailFeature.RETENTION: ("purge", "age"),
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

    Attaching must be repeatable. `{table}` stands for a table as SQL spells it, with its schema, `{table_literal}` for
    the same as a text, `{name}` for its name alone, `{role}` and `{role_literal}` for the application's role.
    `{exclude}` and `{mask}` are arrays of texts, `{placeholder}` is a text.
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
    #: rows of id, name, correlation_id and job_id, by which `action_id` of a change is followed
    actions: str = ""
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
    claims: tuple[TrailFeature, ...] = ()
    #: where the trail's own limits are documented: a path or an address
    documentation: str = ""
