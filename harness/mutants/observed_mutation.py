"""Mutations of the rows that the harness reads from an audit trail.

A mutation stands for a faulty trail: it changes the rows between the trail and the checks, in one column. A sound trail
could never show such rows, so at least one check has to turn to Issue. They need no SQL of the trail, so every trail is
judged by the same list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.audit.actor_convention import IdType
from harness.audit.changes import OPTIONAL
from harness.audit.target_file import Recorded, TrailFeature
from harness.mutants.observed_rows import Row

if TYPE_CHECKING:
    from harness.audit.target import AuditTarget

#: returns other rows. It gets the number of earlier reads of the same check, and changes nothing in its argument
Apply = Callable[[list[Row], int], list[Row]]


class Mutation(Struct, frozen=True, kw_only=True):
    """One way in which a faulty trail differs from a sound one."""

    #: `column.operator`
    name: str
    #: the canonical column, or `row` for whole rows
    column: str
    #: completes the sentence "a trail that …"
    what: str
    apply: Apply
    #: what a trail must claim to be judged by it
    feature: TrailFeature | None = None
    #: the property that a trail must have to be judged by it
    records: Recorded | None = None
    #: whether it is about ids of actors that are any text
    text_ids: bool = False
    #: whether it changes nothing but rows of writes without an actor
    undeclared: bool = False
    #: why a sound trail can show such rows; empty for all others
    sound: str = ""
    #: why it is sound in a trail of texts, whose values are read back as the types of their columns
    sound_as_texts: str = ""

    def left_out(self, target: AuditTarget) -> str:
        """Return in one sentence why a sound trail of this kind can show such rows; "" when it cannot."""
        return next(self._reasons(target), "")

    def _reasons(self, target: AuditTarget) -> Iterator[str]:
        if sound := self.sound or (self.sound_as_texts if self.column in target.texts else ""):
            yield sound
        if self.feature and self.feature not in target.claims:
            yield self.feature.unclaimed
        if self.records and (lacking := target.lacking(self.records)):
            yield lacking
        if self.undeclared and not target.may_write_undeclared:
            yield "the trail refuses writes without an actor"
        if self.text_ids and target.actor.ids is not IdType.TEXT:
            yield f"ids of actors have the type {target.actor.ids.value} in this trail"
        if self.column in OPTIONAL and target.columns is not None and self.column not in target.columns:
            yield f"the audit target's changes have no column {self.column}"

    def started(self) -> Callable[[list[Row]], list[Row]]:
        """Return the hook for one run of a check: it counts the reads."""
        reads = 0

        def read(rows: list[Row]) -> list[Row]:
            nonlocal reads
            reads += 1
            return self.apply(rows, reads - 1)

        return read


def mutation(
    name: str,
    what: str,
    apply: Callable[[list[Row]], list[Row]],
    *,
    feature: TrailFeature | None = None,
    records: Recorded | None = None,
    sound: str = "",
) -> Mutation:
    """Return a mutation that treats every read alike.

    :param name: `column.operator`.
    """
    return Mutation(
        name=name,
        column=name.partition(".")[0],
        what=what,
        apply=lambda rows, _reads: apply(rows),
        feature=feature,
        records=records,
        sound=sound,
    )
