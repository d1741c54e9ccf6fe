"""The checklist walkthrough: its nineteen items, answered by checks, or by people who sign what they did."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from harness.model import Section, Status
from harness.report.evidence import NOBODY_RAN_IT, worst

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.model import Attestation
    from harness.report.evidence import Row


class Item(Struct, frozen=True, kw_only=True):
    """One item: the checks that answer it, or the work of people that does."""

    section: Section
    summary: str
    checks: tuple[str, ...] = ()
    #: for work that no harness can do: what an operator's statement about it is filed under, and why it is theirs
    attested_as: str = ""
    human: str = ""


class ItemAnswer(Struct, frozen=True, kw_only=True):
    """An item with its answer: a command that shows it, or where what was signed can be read; and why it is not OK."""

    number: str
    section: Section
    summary: str
    status: Status
    checks: tuple[str, ...]
    command: str
    reason: str


TITLES = {
    Section.CAPTURE: "Capture and triggers",
    Section.ACTOR: "Actor bridge and semantics",
    Section.REDACTION: "Redaction",
    Section.RETENTION: "Retention and purge",
    Section.EXPORT: "Export and investigation",
    Section.OBSERVABILITY: "Observability",
    Section.CONTINUITY: "Continuity",
}

ITEMS: tuple[Item, ...] = (
    Item(
        section=Section.CAPTURE,
        summary="Audit schema installed, capture triggers on the tables",
        checks=(
            *("capture.insert", "capture.update", "capture.delete", "capture.no-change", "capture.changed-from"),
            *("capture.bulk", "capture.upsert", "capture.merge", "capture.cascade", "capture.truncate"),
            *("capture.partitions", "capture.stored-values", "capture.views"),
            *("capture.keys", "capture.key-change", "capture.renamed-key", "capture.identifiers"),
            *("capture.hostile-identifiers", "capture.column-names", "capture.json-values", "capture.float-digits"),
            *(
                "capture.hostile-values",
                "capture.large-values",
                "capture.nested-writes",
                "capture.one-transaction",
                "capture.rollback",
            ),
            *("capture.savepoint", "capture.two-phase", "capture.killed-connection", "capture.reused-txid"),
            *("capture.occurred-at", "capture.temp-tables", "capture.search-path", "capture.forgery"),
            *("capture.least-rights", "capture.no-recursion", "capture.replica-role", "capture.locked-trail"),
            *("capture.trail-gone", "capture.durable", "capture.dropped-table", "capture.attach", "capture.install"),
        ),
    ),
    Item(
        section=Section.CAPTURE,
        summary="Trigger definitions are the same in every environment",
        checks=("capture.parity",),
    ),
    Item(
        section=Section.CAPTURE,
        summary="Coverage verified",
        checks=("capture.coverage", "capture.canary", "capture.schema-change"),
    ),
    Item(
        section=Section.CAPTURE,
        summary="Health check of the capture wired up",
        checks=("observability.health",),
    ),
    Item(
        section=Section.ACTOR,
        summary="Actor set in the same transaction as the write, before it",
        checks=(
            *("actor.local-setting", "actor.unset", "actor.residue", "actor.types", "actor.anonymous", "actor.invalid"),
            *("actor.rollback-to-savepoint", "actor.first-write-in-savepoint", "actor.isolation-levels"),
            *("actor.prepared", "actor.pipeline", "actor.single-message", "actor.shared-connection"),
            *("actor.moved-connection", "actor.after-error", "actor.vanished-client", "actor.many-clients"),
            *("actor.careless-session-set", "actor.careless-session-set-lost", "actor.careless-outside-transaction"),
            *("actor.careless-after-first-write", "actor.careless-startup-option", "actor.careless-role-default"),
        ),
    ),
    Item(section=Section.ACTOR, summary="Jobs carry actor and correlation", checks=("actor.jobs",)),
    Item(
        section=Section.ACTOR,
        summary="Actions recorded where the intent matters",
        checks=(
            *("actor.action-recorded", "actor.action-anonymous", "actor.action-linkage", "actor.linked-action-kept"),
            *("actor.correlation-stored", "actor.unit-of-work", "actor.unit-of-work-fails"),
        ),
    ),
    Item(
        section=Section.REDACTION,
        summary="Sensitive columns reviewed",
        attested_as="sensitive-columns-reviewed",
        human="which columns are sensitive is for people who know the data to say, and no operator has signed it",
    ),
    Item(
        section=Section.REDACTION,
        summary="Redaction rules in place, and tried in a dry run",
        checks=(
            *("redaction.insert", "redaction.update", "redaction.delete", "redaction.canaries", "redaction.partitions"),
            *("redaction.null-hidden", "redaction.refused-rules", "redaction.computed-later"),
            *("redaction.renamed-column", "redaction.dry-run", "redaction.except-columns"),
            *("redaction.earlier-rows", "redaction.excluded-only"),
        ),
    ),
    Item(section=Section.REDACTION, summary="JSON columns are masked whole", checks=("redaction.json-whole",)),
    Item(
        section=Section.RETENTION,
        summary="Retention policy configured",
        checks=(
            *("retention.disabled", "retention.old-gone", "retention.boundary", "retention.mixed-age"),
            *("retention.keep-transactions", "retention.empty-transactions", "retention.actions"),
        ),
    ),
    Item(section=Section.RETENTION, summary="Purge tried in a dry run", checks=("retention.dry-run",)),
    Item(
        section=Section.RETENTION,
        summary="Purge runs in batches",
        checks=("retention.purge", "retention.stops-early", "retention.side-by-side"),
    ),
    Item(
        section=Section.RETENTION,
        summary="Backups and point-in-time recovery agree with retention",
        attested_as="backups-agree-with-retention",
        human="backups are kept outside of what the harness stands up; no operator has signed that they agree",
    ),
    Item(
        section=Section.EXPORT,
        summary="Timeline filter keys known",
        checks=(
            *("export.timeline", "export.correlation", "export.history", "export.as-of", "export.actor-history"),
            *("export.transaction", "export.commit-order", "export.foreign-rows", "export.rights"),
        ),
    ),
    Item(
        section=Section.EXPORT,
        summary="Large exports stream or say that they were cut",
        checks=("export.csv", "export.json", "export.truncation", "export.streaming", "export.late-commit"),
    ),
    Item(
        section=Section.OBSERVABILITY,
        summary="Telemetry attached",
        checks=("observability.after-commit", "observability.actions", "observability.no-values"),
    ),
    Item(section=Section.OBSERVABILITY, summary="Purge leaves log lines", checks=("observability.purge-logs",)),
    Item(
        section=Section.CONTINUITY,
        summary="Rows older than the trigger understood",
        checks=(
            *("continuity.old-rows", "continuity.nothing-made-up", "continuity.capture-ready"),
            "continuity.cutover-under-load",
        ),
    ),
)

_FEW = 3


def walk(rows: Sequence[Row], attestations: Sequence[Attestation] = ()) -> list[ItemAnswer]:
    """Answer every item; one of checks is OK only if all of them are, in every topology.

    An item of human work is N/A, or OK by what an operator signed.
    """
    signed: dict[str, Attestation] = {each.item: each for each in attestations}
    answers = []
    numbers = dict.fromkeys(Section, 0)
    for item in ITEMS:
        numbers[item.section] += 1
        number = f"{list(Section).index(item.section) + 1}.{numbers[item.section]}"
        answer = _by_checks(item, rows) if item.checks else _by_people(item, signed.get(item.attested_as))
        answers.append(msgspec.structs.replace(answer, number=number))
    return answers


def _by_people(item: Item, signed: Attestation | None) -> ItemAnswer:
    return ItemAnswer(
        number="",
        section=item.section,
        summary=item.summary,
        status=Status.OK if signed else Status.NA,
        checks=(),
        command=signed.link if signed else "",
        reason=f"{signed.by} on {signed.on}: {signed.statement}" if signed else item.human,
    )


def _by_checks(item: Item, rows: Sequence[Row]) -> ItemAnswer:
    relevant = [row for row in rows if row.planned.check in item.checks]
    absent = sorted(set(item.checks) - {row.planned.check for row in relevant})
    status = worst([row.status for row in relevant] + [Status.NOT_RUN for _ in absent])
    reason = ""
    if status is not Status.OK:
        blamed = [row for row in relevant if row.status is status]
        reason = (
            "; ".join(f"{row.planned.check} in {row.planned.topology}: {row.result.reason}" for row in blamed[:_FEW])
            or NOBODY_RAN_IT
        )
        if len(blamed) > _FEW:
            reason += f"; and {len(blamed) - _FEW} more"
    first = {row.planned.topology: row for row in reversed(relevant)}
    commands = [_command(item, row) for row in reversed(first.values())]
    return ItemAnswer(
        number="",
        section=item.section,
        summary=item.summary,
        status=status,
        checks=item.checks,
        command=" && ".join(dict.fromkeys(commands)),
        reason=reason,
    )


def _command(item: Item, row: Row) -> str:
    """Return the command that answers the item in a row's topology: its checks if they are few, else their suite."""
    chosen = (
        [f"--check {each}" for each in item.checks]
        if len(item.checks) <= _FEW
        else [f"--suite {each}" for each in dict.fromkeys(check.partition(".")[0] for check in item.checks)]
    )
    return row.result.reproduce.replace(f"--check {row.planned.check}", " ".join(chosen))
