"""Breaks of the audit trail itself, each with exactly the checks that must become Issues.

A control shows that one check can fail. A trail break shows that the checks locate the fault: the checks that watch
the broken part become Issues, and all others keep their status.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.checks.registry import breaks_trail
from harness.suites.sabotage import blind_coverage, unlink_actions

if TYPE_CHECKING:
    from harness.checks.context import CheckContext

#: checks that compare the trail with its installation, so any change to it makes them Issues
_COVERAGE = ("capture.canary", "capture.coverage", "capture.parity", "continuity.capture-ready")
#: checks that compare the actor of a write
_ATTRIBUTION = (
    *("actor.actions-apart", "actor.anonymous", "actor.first-write-in-savepoint", "actor.ids", "actor.nested-work"),
    *("actor.isolation-levels", "actor.jobs", "actor.local-setting", "actor.many-clients"),
    *("actor.moved-connection", "actor.pipeline", "actor.prepared", "actor.rollback-to-savepoint"),
    *("actor.shared-connection", "actor.single-message", "actor.types", "actor.unit-of-work", "actor.writers"),
    *("capture.cascade", "capture.least-rights", "capture.reused-txid", "capture.savepoint"),
    "capture.table-owner",
    *("capture.truncate", "capture.two-phase", "continuity.old-rows"),
)
_EXCLUDED = (
    # predictions about careless settings: their result under a break depends on the pool mode
    *("actor.careless-session-set", "actor.careless-session-set-lost", "actor.careless-outside-transaction"),
    *("actor.careless-after-first-write", "actor.careless-startup-option", "actor.careless-role-default"),
    # takes as long as all the others together
    "capture.large-values",
)
_WRITES = ("capture", "actor", "continuity")


@breaks_trail(
    what="it does not capture deletes",
    among=_WRITES,
    turns=(
        *_COVERAGE,
        *("actor.many-clients", "capture.bulk", "capture.cascade", "capture.changed-from"),
        *("capture.column-names", "capture.delete", "capture.hostile-identifiers", "capture.inheritance"),
        *("capture.key-values", "capture.keys", "capture.merge", "capture.partitions", "continuity.old-rows"),
        *("capture.shadowed-names", "capture.temp-tables"),
    ),
    excluded=_EXCLUDED,
)
def no_deletes(ctx: CheckContext) -> None:
    ctx.rewrite_capture(
        ("ELSIF TG_OP = 'UPDATE' THEN", "ELSIF TG_OP = 'DELETE' THEN RETURN NULL; ELSIF TG_OP = 'UPDATE' THEN"),
        ("IF TG_OP <> 'INSERT' THEN", "IF TG_OP = 'DELETE' THEN RETURN NULL; END IF; IF TG_OP <> 'INSERT' THEN"),
    )


@breaks_trail(
    what="it does not name the columns that an update changed",
    among=_WRITES,
    turns=(
        *_COVERAGE,
        *("capture.changed-from", "capture.column-names", "capture.json-values", "capture.repeated-updates"),
        *("capture.update", "capture.values"),
    ),
    excluded=_EXCLUDED,
)
def no_changed_fields(ctx: CheckContext) -> None:
    ctx.tamper("audit_changes", "NEW.changed_fields := NULL")


@breaks_trail(
    what="it attributes every write to nobody",
    among=_WRITES,
    turns=(
        *_COVERAGE,
        *_ATTRIBUTION,
    ),
    excluded=_EXCLUDED,
)
def no_actors(ctx: CheckContext) -> None:
    ctx.tamper("audit_transactions", "NEW.actor_ref := NULL")


@breaks_trail(
    what="it stores keys as text",
    among=("capture", "export"),
    turns=(
        *_COVERAGE,
        *("capture.identifiers", "capture.key-values", "capture.keys", "capture.partitions", "export.history"),
    ),
    excluded=_EXCLUDED,
)
def text_keys(ctx: CheckContext) -> None:
    ctx.rewrite_function("threadline_row_key", ("jsonb_object_agg(k, image -> k)", "jsonb_object_agg(k, image ->> k)"))
    ctx.rewrite_capture(("jsonb_build_object(v_key, r.image -> v_key)", "jsonb_build_object(v_key, r.image ->> v_key)"))


@breaks_trail(
    what="it runs with the writer's rights, and the writer may insert audit rows",
    among=_WRITES,
    turns=(
        *_COVERAGE,
        *("capture.forgery", "capture.least-rights"),
    ),
    excluded=_EXCLUDED,
)
def callers_rights(ctx: CheckContext) -> None:
    ctx.rewrite_capture(("SECURITY DEFINER", ""))
    ctx.sabotage("GRANT SELECT, INSERT ON public.audit_changes, public.audit_transactions TO harness_app")


@breaks_trail(
    what="it does not capture TRUNCATE",
    among=("capture", "actor", "export"),
    turns=(
        *_COVERAGE,
        *("capture.truncate", "export.as-of"),
    ),
    excluded=_EXCLUDED,
)
def no_truncates(ctx: CheckContext) -> None:
    ctx.rewrite_capture(
        ("IF TG_OP = 'INSERT' THEN", "IF TG_OP = 'TRUNCATE' THEN RETURN NULL; ELSIF TG_OP = 'INSERT' THEN")
    )


@breaks_trail(
    what="it records every change in a transaction of its own",
    among=_WRITES,
    turns=(
        *_COVERAGE,
        *_ATTRIBUTION,
        *("actor.action-recorded", "actor.action-rolled-back", "actor.correlation-stored"),
        *("actor.linked-action-kept", "capture.bulk", "capture.one-transaction"),
    ),
    excluded=_EXCLUDED,
)
def torn_transactions(ctx: CheckContext) -> None:
    ctx.tamper("audit_changes", "NEW.transaction_id := gen_random_uuid()")


@breaks_trail(
    what="it links no action to its transaction",
    among=("actor", "retention", "export"),
    turns=(
        *("actor.action-recorded", "actor.correlation-stored", "actor.jobs"),
        *("actor.linked-action-kept", "actor.unit-of-work", "export.timeline", "export.csv"),
        "retention.actions",
    ),
    excluded=_EXCLUDED,
)
def unlinked_actions(ctx: CheckContext) -> None:
    unlink_actions(ctx)


@breaks_trail(
    what="it masks nothing",
    among=("redaction", "capture"),
    turns=(
        *_COVERAGE,
        *("redaction.canaries", "redaction.earlier-rows", "redaction.insert", "redaction.json-whole", "redaction.later-ddl"),
        *("redaction.null-hidden", "redaction.partitions", "redaction.refused-rules", "redaction.update"),
    ),
    excluded=_EXCLUDED,
)
def no_masks(ctx: CheckContext) -> None:
    ctx.rewrite_function("threadline_redacted", ("rules -> 'placeholder')", "image -> m)"))


@breaks_trail(
    what="its purge deletes changes of any age",
    among=("retention", "observability"),
    turns=(
        *("retention.actions", "retention.boundary", "retention.dry-run", "retention.mixed-age", "retention.old-gone"),
        *("retention.purge", "retention.side-by-side"),
    ),
    excluded=_EXCLUDED,
)
def purge_of_everything(ctx: CheckContext) -> None:
    ctx.rewrite_function("threadline_purge_changes", ("c.captured_at < cutoff", "true"))


@breaks_trail(
    what="its times are an hour late",
    among=("retention", "export", "continuity"),
    turns=(
        *_COVERAGE,
        *("continuity.nothing-made-up", "export.commit-order"),
    ),
    excluded=_EXCLUDED,
)
def late_times(ctx: CheckContext) -> None:
    ctx.tamper("audit_changes", "NEW.captured_at := NEW.captured_at + interval '1 hour'")


@breaks_trail(
    what="its coverage reports every table as captured",
    among=("capture", "redaction", "observability", "continuity"),
    turns=(
        *("capture.canary", "capture.coverage", "capture.parity", "capture.renamed-key", "capture.schema-change"),
        *("continuity.capture-ready", "observability.health", "redaction.refused-rules"),
    ),
    excluded=_EXCLUDED,
)
def no_coverage(ctx: CheckContext) -> None:
    blind_coverage(ctx)
