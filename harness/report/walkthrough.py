"""The checklist walkthrough: nineteen items, each answered by checks or by an operator who signs the work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from harness.config import nearest
from harness.errors import ConfigError
from harness.model import Section, Status
from harness.report.evidence import NOBODY_RAN_IT, worst
from harness.report.outcomes import is_interrupted
from harness.report.scope import asked_for
from harness.suites.catalogue import catalogue

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from harness.model import Attestation
    from harness.report.evidence import Row


class Item(Struct, frozen=True, kw_only=True):
    """One item of the checklist. Checks name the item that they answer; people answer the others."""

    #: section and position, such as `2.1`
    number: str
    section: Section
    summary: str
    #: for human work: the `item` of the operator's attestation
    attested_as: str = ""
    #: for human work: why no check can answer it
    human: str = ""


class ItemAnswer(Struct, frozen=True, kw_only=True):
    """An item with its answer."""

    number: str
    section: Section
    summary: str
    status: Status
    #: the checks that answer it; empty for human work
    checks: tuple[str, ...]
    #: the command that reproduces the answer, or the link to what was signed
    command: str
    #: why it is not OK, how many documented limits were observed, or what was signed
    reason: str
    #: of an item that is Not run: whether it needs rows that no run was asked for, and rows whose run was interrupted
    unasked: bool = False
    interrupted: bool = False


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
    Item(number="1.1", section=Section.CAPTURE, summary="Audit schema installed, capture triggers on the tables"),
    Item(number="1.2", section=Section.CAPTURE, summary="Trigger definitions are the same in every environment"),
    Item(number="1.3", section=Section.CAPTURE, summary="Coverage verified"),
    Item(number="1.4", section=Section.CAPTURE, summary="Health check of the capture wired up"),
    Item(number="2.1", section=Section.ACTOR, summary="Actor set in the same transaction as the write, before it"),
    Item(number="2.2", section=Section.ACTOR, summary="Jobs carry actor and correlation"),
    Item(number="2.3", section=Section.ACTOR, summary="Actions recorded where the intent matters"),
    Item(
        number="3.1",
        section=Section.REDACTION,
        summary="Sensitive columns reviewed",
        attested_as="sensitive-columns-reviewed",
        human="only people who know the data can decide which columns are sensitive, and no operator has signed this",
    ),
    Item(number="3.2", section=Section.REDACTION, summary="Redaction rules in place and tested in a dry run"),
    Item(number="3.3", section=Section.REDACTION, summary="JSON columns are masked whole"),
    Item(number="4.1", section=Section.RETENTION, summary="Retention policy configured"),
    Item(number="4.2", section=Section.RETENTION, summary="Purge tested in a dry run"),
    Item(number="4.3", section=Section.RETENTION, summary="Purge runs in batches"),
    Item(
        number="4.4",
        section=Section.RETENTION,
        summary="Backups and point-in-time recovery agree with retention",
        attested_as="backups-agree-with-retention",
        human="backups are outside of what the harness starts, and no operator has signed that they agree",
    ),
    Item(number="5.1", section=Section.EXPORT, summary="Timeline filter keys known"),
    Item(number="5.2", section=Section.EXPORT, summary="Large exports stream or report that they are truncated"),
    Item(number="6.1", section=Section.OBSERVABILITY, summary="Telemetry attached"),
    Item(number="6.2", section=Section.OBSERVABILITY, summary="Purge leaves log lines"),
    Item(number="7.1", section=Section.CONTINUITY, summary="Rows older than the trigger understood"),
)

_FEW = 3


def walk(rows: Sequence[Row], attestations: Sequence[Attestation] = ()) -> list[ItemAnswer]:
    """Answer every item.

    An item with checks gets the worst status of all its checks in all topologies. An item of human work is OK if an
    operator has signed it, else N/A.

    :raises ConfigError: for a check that names an unknown item.
    """
    known = {item.number for item in ITEMS if not item.human}
    for check in catalogue().checks:
        if check.item and check.item not in known:
            raise ConfigError(f"check {check.id}: unknown item {check.item!r}", hint=nearest(check.item, known))
    item_of = {check.id: check.item for check in catalogue().checks}
    rows_of: dict[str, list[Row]] = {}
    for row in rows:
        rows_of.setdefault(item_of.get(row.planned.check, ""), []).append(row)
    signed: dict[str, Attestation] = {attestation.item: attestation for attestation in attestations}
    checks_of: dict[str, list[str]] = {}
    for check in catalogue().checks:
        checks_of.setdefault(check.item, []).append(check.id)
    return [
        _by_people(item, signed.get(item.attested_as))
        if item.human
        else _by_checks(item, checks_of[item.number], rows_of.get(item.number, []))
        for item in ITEMS
    ]


def _by_people(item: Item, signed: Attestation | None) -> ItemAnswer:
    return ItemAnswer(
        number=item.number,
        section=item.section,
        summary=item.summary,
        status=Status.OK if signed else Status.NA,
        checks=(),
        command=signed.link if signed else "",
        reason=f"{signed.by} on {signed.on}: {signed.statement}" if signed else item.human,
    )


def _by_checks(item: Item, checks: Sequence[str], relevant: Sequence[Row]) -> ItemAnswer:
    absent = sorted(set(checks) - {row.planned.check for row in relevant})
    status = worst([row.status for row in relevant] + [Status.NOT_RUN for _ in absent])
    reason = ""
    if status is not Status.OK:
        # what a run was asked for comes first: the others are listed by the command
        decisive = sorted((row for row in relevant if row.status is status), key=_is_unasked)
        reason = (
            "; ".join(f"{row.planned.check} in {row.planned.target}: {row.result.reason}" for row in decisive[:_FEW])
            or NOBODY_RAN_IT
        )
        if len(decisive) > _FEW:
            reason += f"; and {len(decisive) - _FEW} more"
    elif limited := sum(row.result.limit is not None for row in relevant):
        reason = f"{limited} documented limit{'s' if limited > 1 else ''} observed"
    first = {row.planned.target: row for row in reversed(relevant)}
    commands = [_command(checks, row) for row in reversed(first.values())]
    return ItemAnswer(
        number=item.number,
        section=item.section,
        summary=item.summary,
        status=status,
        checks=tuple(checks),
        command=" && ".join(dict.fromkeys(commands)),
        reason=reason,
        unasked=status is Status.NOT_RUN and (bool(absent) or any(map(_is_unasked, relevant))),
        interrupted=status is Status.NOT_RUN and any(is_interrupted(row.result) for row in relevant),
    )


def _is_unasked(row: Row) -> bool:
    return row.status is Status.NOT_RUN and not asked_for(row)


def causes_in_words(answers: Iterable[ItemAnswer]) -> str:
    """Return why items are Not run, as the end of a sentence that counts them; "" for other causes."""
    answers = tuple(answers)
    unasked, interrupted = (sum(getattr(one, name) for one in answers) for name in ("unasked", "interrupted"))
    causes = (
        f"{unasked} {'needs' if unasked == 1 else 'need'} rows that no run was asked for" if unasked else "",
        f"{interrupted} {'needs' if interrupted == 1 else 'need'} rows of an interrupted run" if interrupted else "",
    )
    said = ", ".join(filter(None, causes))
    return f"; {said}" if said else ""


def _command(checks: Sequence[str], row: Row) -> str:
    """Return the command that answers an item in a row's topology: with its checks if they are few, else its suites."""
    chosen = (
        [f"--check {check}" for check in checks]
        if len(checks) <= _FEW
        else [f"--suite {suite}" for suite in dict.fromkeys(check.partition(".")[0] for check in checks)]
    )
    return row.result.reproduce.replace(f"--check {row.planned.check}", " ".join(chosen))
