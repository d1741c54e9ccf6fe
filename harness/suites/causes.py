"""What the Issues of a foreign audit trail have in common, and what its maintainers can change.

One fault of a trail shows in several checks. The table maps each check to the cause that it usually has; a check of
a suite without an entry has the cause of its suite.
"""

from __future__ import annotations

import re
from enum import Enum

from msgspec import Struct

from harness.model import CHECK_BROKE


class Reason(Struct, frozen=True):
    """What several findings have in common."""

    #: a sentence without a full stop
    title: str
    #: what to change, in sentences
    advice: str


class Cause(Enum):
    """The causes, the most serious first."""

    MISSING = Reason(
        "the trail does not record a property",
        "Record it. If it is left out by design, name it in `omits` of the target file, and give the check an entry in "
        "`limits` with the place in the documentation of the trail.",
    )
    UNPROTECTED = Reason(
        "whoever writes can change the trail, or switch capture off",
        "Let a role that no application can become own the tables of the trail. Revoke INSERT, UPDATE, DELETE and "
        "TRUNCATE on them, and USAGE on their sequences, from PUBLIC and from the application. Write from a SECURITY "
        "DEFINER function with a fixed search_path. Revoke EXECUTE from PUBLIC on every function that the application "
        "does not call, also on the capture function: its triggers fire without that right, and nobody else can attach "
        "it. Let no setting that the application may set switch capture off.",
    )
    NAMES = Reason(
        "names in the capture function are resolved with the writer's search_path",
        "Qualify each table, function, operator and type with its schema, such as OPERATOR(pg_catalog.=). Or give the "
        "function `SET search_path = pg_catalog, pg_temp` with pg_temp last, and qualify the tables of the trail.",
    )
    ACTOR = Reason(
        "changes have the actor of somebody else, or a wrong one",
        "Declare the actor within the transaction of the write (`SET LOCAL`, or set_config with true), and read it in "
        "the capture function for each transaction. Do not keep it in the session, in temporary tables or under a pid: "
        "behind a pooler others use the same server connection. Validate it, and store the id exactly as declared.",
    )
    UNDECLARED = Reason(
        "a write without an actor is treated in another way than the target file says",
        "If the trail refuses such a write by design, set `required = true` in `[actor]`; otherwise record it with the "
        "actor NULL. A trail that requires an actor has to refuse each write without one: also an update, a delete and a "
        "TRUNCATE, and a write on a connection that another actor used before.",
    )
    MISSED = Reason(
        "changes are not recorded, or recorded twice",
        "Capture with AFTER triggers FOR EACH ROW, or with transition tables, for every operation, on the tables and "
        "partitions that are written to. Record every row of a statement once, whatever makes the change: COPY, MERGE, "
        "a cascade, a function or another trigger. A trigger that must also fire in the role of a replica needs ENABLE "
        "ALWAYS. Keep the records in permanent tables: a crash empties an UNLOGGED one.",
    )
    VALUES = Reason(
        "recorded values differ from the stored ones",
        "Build the image from the whole row with to_jsonb(NEW), or keep columns in their own types. Let the function "
        "fix the settings that form texts: DateStyle, IntervalStyle, TimeZone, extra_float_digits, bytea_output. "
        "Compare rows with IS DISTINCT FROM. Read the key from the primary key of the table, not from a column `id`.",
    )
    TRANSACTIONS = Reason(
        "changes are not attributed to their transaction, or not in order",
        "Identify a transaction by pg_current_xact_id() together with something that no restore repeats, such as a "
        "UUID. Take times from clock_timestamp() where the order of changes depends on them: now() is the begin of the "
        "transaction. Let rollbacks and savepoints undo the record with the change. PostgreSQL fires triggers in the "
        "order of their names, so give the capture trigger a name before those of triggers that change the row again.",
    )
    UNDOCUMENTED = Reason(
        "a limit of the trail is not documented",
        "Record it. Or document it, and give the check an entry in `limits` of the target file, with the place.",
    )
    BURDEN = Reason(
        "an audited write fails, waits or leaves something behind because of the trail",
        "Take no lock that another row's writer needs, and no explicit lock of the trail. Write to no row that all "
        "writers share. Change no setting for the session, and create no temporary object. Read nothing of the trail "
        "while a write is captured: with SERIALIZABLE, reads of several writers collide.",
    )
    COVERAGE = Reason(
        "the trail does not see which tables it captures",
        "Look at pg_trigger by OID: the trigger has to exist, to be enabled (tgenabled), and to call the function of "
        "the trail. Names of tables repeat in other schemas. An installation or attachment that is repeated has to "
        "leave the same state.",
    )
    REDACTION = Reason(
        "redacted values reach the trail or a log",
        "Apply the rules to the image, to prior values and to the key, before anything is stored or raised. Refuse a "
        "rule for a column that does not exist, and follow renamed columns.",
    )
    RETENTION = Reason(
        "the purge deletes too much or too little",
        "Delete exactly what was captured before the cutoff, then the transactions without a change that is left. "
        "Keep what was captured exactly then, and let it be repeated.",
    )
    EXPORT = Reason(
        "what is read or exported from the trail differs from what it holds",
        "Order by something that grows with each commit, export each change once, and join with outer joins.",
    )
    HARNESS = Reason(
        "the check itself broke",
        "This is a mistake of the harness, and says nothing about the trail. Please report it with the evidence.",
    )
    OTHER = Reason("other findings", "Read the evidence of each check.")

    @property
    def title(self) -> str:
        return self.value.title

    @property
    def advice(self) -> str:
        return self.value.advice


_OF_CHECKS = {
    Cause.UNPROTECTED: (
        *("capture.forgery", "capture.switches", "capture.table-owner", "capture.least-rights"),
        "export.rights",
    ),
    Cause.UNDECLARED: ("trail.undeclared",),
    Cause.NAMES: ("capture.search-path", "capture.temp-tables", "capture.shadowed-names"),
    Cause.VALUES: (
        *("capture.values", "capture.stored-values", "capture.json-values", "capture.key-values", "capture.keys"),
        *("capture.hostile-values", "capture.large-values", "capture.changed-from", "capture.no-change"),
        *("capture.column-names", "capture.identifiers", "capture.hostile-identifiers", "capture.renamed-key"),
        *("capture.schema-change", "capture.key-change"),
    ),
    Cause.TRANSACTIONS: (
        *("capture.one-transaction", "capture.reused-txid", "capture.rollback", "capture.savepoint"),
        *("capture.two-phase", "capture.nested-writes", "capture.killed-connection", "capture.overlapping"),
        *("capture.times", "capture.occurred-at", "actor.rollback-to-savepoint"),
    ),
    Cause.BURDEN: (
        *("capture.waits", "capture.isolation", "capture.session-state", "capture.same-answers"),
        *("capture.locked-trail", "capture.trail-gone", "capture.no-recursion", "actor.isolation-levels"),
    ),
    Cause.COVERAGE: (
        *("capture.coverage", "capture.canary", "capture.attach", "capture.install", "capture.parity"),
        *("capture.dropped-table", "continuity.capture-ready"),
    ),
    Cause.REDACTION: ("observability.no-values", "observability.messages", "observability.purge-logs"),
}
_OF_SUITES = {
    "trail": Cause.MISSING,
    "capture": Cause.MISSED,
    "actor": Cause.ACTOR,
    "redaction": Cause.REDACTION,
    "retention": Cause.RETENTION,
    "export": Cause.EXPORT,
    "continuity": Cause.MISSED,
}
#: what was observed says more than the check; the first pattern that occurs counts
_OF_REASONS = (
    (re.compile(f"^{re.escape(CHECK_BROKE)}"), Cause.HARNESS),
    (re.compile("observed no entry for .* among the `limits`"), Cause.UNDOCUMENTED),
    # an undefined table, function, type or schema
    (re.compile(r"observed (42P01|42883|42704|3F000)\b"), Cause.NAMES),
)
_CAUSES = {check: cause for cause, checks in _OF_CHECKS.items() for check in checks}


def cause_of(check: str, reason: str = "") -> Cause:
    """Return the cause that an Issue of a foreign trail usually has.

    :param check: the id of the check.
    :param reason: of the Issue.
    """
    for pattern, cause in _OF_REASONS:
        if pattern.search(reason):
            return cause
    return _CAUSES.get(check) or _OF_SUITES.get(check.partition(".")[0], Cause.OTHER)


#: the ids that the table names; a test compares them with the catalogue
NAMED = frozenset(_CAUSES)
