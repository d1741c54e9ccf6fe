"""The checklist walkthrough: its nineteen items, each answered by checks, or Not run with the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from harness.model import Section, Status
from harness.report.evidence import NOBODY_RAN_IT, worst

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.report.evidence import Row


class Item(Struct, frozen=True, kw_only=True):
    """One item: the checks that answer it, or why none does yet."""

    section: Section
    summary: str
    checks: tuple[str, ...] = ()
    not_run: str = ""


class ItemAnswer(Struct, frozen=True, kw_only=True):
    """An item with its answer; `evidence` is a command where it is OK, else a reason."""

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

_NO_SUITE = "the {} suite is not part of this version of the harness"


def _unbuilt(section: Section, summary: str) -> Item:
    return Item(section=section, summary=summary, not_run=_NO_SUITE.format(section.value))


ITEMS: tuple[Item, ...] = (
    Item(
        section=Section.CAPTURE,
        summary="Audit schema installed, capture triggers on the tables",
        checks=(
            "capture.insert",
            "capture.update",
            "capture.delete",
            "capture.truncate",
            "capture.bulk",
            "capture.upsert",
            "capture.merge",
            "capture.cascade",
            "capture.partitions",
            "capture.keys",
            "capture.one-transaction",
            "capture.rollback",
            "capture.savepoint",
            "capture.two-phase",
            "capture.temp-tables",
            "capture.search-path",
            "capture.forgery",
        ),
    ),
    Item(
        section=Section.CAPTURE,
        summary="Trigger definitions are the same in every environment",
        not_run="comparing two environments is not part of this version of the harness",
    ),
    Item(section=Section.CAPTURE, summary="Coverage verified", checks=("capture.coverage", "capture.canary")),
    Item(
        section=Section.CAPTURE,
        summary="Health check of the capture wired up",
        not_run=_NO_SUITE.format("observability"),
    ),
    Item(
        section=Section.ACTOR,
        summary="Actor set in the same transaction as the write, before it",
        checks=(
            "actor.local-setting",
            "actor.unset",
            "actor.residue",
            "actor.invalid",
            "actor.rollback-to-savepoint",
            "actor.shared-connection",
            "actor.moved-connection",
            "actor.after-error",
            "actor.vanished-client",
            "actor.many-clients",
            "actor.prepared",
        ),
    ),
    Item(
        section=Section.ACTOR,
        summary="Jobs carry actor and correlation",
        not_run="the reference host application with its job runner is not part of this version of the harness",
    ),
    Item(
        section=Section.ACTOR,
        summary="Actions recorded where the intent matters",
        checks=("actor.action-recorded", "actor.action-anonymous"),
    ),
    _unbuilt(Section.REDACTION, "Sensitive columns reviewed"),
    _unbuilt(Section.REDACTION, "Redaction tried in a dry run"),
    _unbuilt(Section.REDACTION, "JSON columns are masked whole"),
    _unbuilt(Section.RETENTION, "Retention policy configured"),
    _unbuilt(Section.RETENTION, "Purge tried in a dry run"),
    _unbuilt(Section.RETENTION, "Purge runs in batches"),
    _unbuilt(Section.RETENTION, "Backups and point-in-time recovery agree with retention"),
    _unbuilt(Section.EXPORT, "Timeline filter keys known"),
    _unbuilt(Section.EXPORT, "Large exports stream or say that they were cut"),
    _unbuilt(Section.OBSERVABILITY, "Telemetry attached"),
    _unbuilt(Section.OBSERVABILITY, "Purge leaves log lines"),
    _unbuilt(Section.CONTINUITY, "Rows older than the trigger understood"),
)


def walk(rows: Sequence[Row]) -> list[ItemAnswer]:
    """Answer every item from the evidence; an item is OK only if all its checks are, in every topology."""
    answers = []
    numbers = dict.fromkeys(Section, 0)
    for item in ITEMS:
        numbers[item.section] += 1
        number = f"{list(Section).index(item.section) + 1}.{numbers[item.section]}"
        relevant = [row for row in rows if row.planned.check in item.checks]
        absent = sorted(set(item.checks) - {row.planned.check for row in relevant})
        status = worst([row.status for row in relevant] + [Status.NOT_RUN for _ in absent])
        reason = ""
        if not item.checks:
            reason = item.not_run
        elif status is not Status.OK:
            blamed = [row for row in relevant if row.status is status]
            reason = (
                "; ".join(f"{row.planned.check} in {row.planned.topology}: {row.result.reason}" for row in blamed[:3])
                or NOBODY_RAN_IT
            )
            if len(blamed) > 3:  # noqa: PLR2004 -- a table cell has room for three
                reason += f"; and {len(blamed) - 3} more"
        first = {row.planned.topology: row for row in reversed(relevant)}
        commands = [
            row.result.reproduce.replace(f"--check {row.planned.check}", f"--suite {item.section.value}")
            for row in reversed(first.values())
        ]
        answers.append(
            ItemAnswer(
                number=number,
                section=item.section,
                summary=item.summary,
                status=status,
                checks=item.checks,
                command=" && ".join(dict.fromkeys(commands)),
                reason=reason,
            )
        )
    return answers
