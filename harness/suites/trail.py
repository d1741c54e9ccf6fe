"""Trail: what an audit trail records at all, as a few writes of the application show it.

Each property is one row. The checks that depend on a property are N/A for a trail without it, and point to its row. A
property that a target file omits is shown as well, as a limit that the trail documents or as an Issue.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from harness.audit.target_file import Recorded
from harness.audit.trial import try_trail
from harness.checks.record import NotApplicableError
from harness.checks.registry import P0, P1, Check, Control, breaks, check
from harness.model import Section
from harness.suites.areas import ACTOR_SETTING, CAPTURE_TRIGGER
from harness.suites.sabotage import claim_required

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.checks.context import CheckContext
    from harness.model import Severity

    Rows = list[dict[str, Any]]

_FOUND, _OMITTED = "recorded", "not recorded"
_AS_DECLARED = "as `required` of `[actor]` says"


def _without(column: str) -> Callable[[Rows], Rows]:
    return lambda rows: [row | {column: None} for row in rows]


def _without_operation(operation: str) -> Callable[[Rows], Rows]:
    return lambda rows: [row for row in rows if row["op"].lower() != operation]


#: by property: the claim, the severity, and what a control changes of the rows that are read
_PROPERTIES: dict[Recorded, tuple[str, Severity, Callable[[Rows], Rows]]] = {
    Recorded.ACTOR: ("the trail records who made a change", P0, _without("actor")),
    Recorded.TRANSACTION_ID: ("the trail records which changes share a transaction", P1, _without("transaction_id")),
    Recorded.INSERTS: ("the trail records inserts", P0, _without_operation("insert")),
    Recorded.UPDATES: ("the trail records updates", P0, _without_operation("update")),
    Recorded.DELETES: ("the trail records deletes", P0, _without_operation("delete")),
    Recorded.IMAGE: ("the trail records the row after the change", P0, _without("data_after")),
    Recorded.ORDER: ("the trail records the order of changes", P1, lambda rows: rows[::-1]),
}


def _shown_by(property_: Recorded, claim: str, severity: Severity) -> Check:
    """Return the check that shows a property."""
    about_actors = property_ in {Recorded.ACTOR, Recorded.UNDECLARED}

    @check(
        property_.check,
        claim=claim,
        section=Section.ACTOR if about_actors else Section.CAPTURE,
        severity=severity,
        item="2.1" if about_actors else "1.1",
        area=ACTOR_SETTING if about_actors else CAPTURE_TRIGGER,
    )
    def shown(ctx: CheckContext) -> None:
        undeclared = ctx.direct_client() if property_ is Recorded.UNDECLARED else None
        trial = try_trail(ctx.target, ctx.direct_client(), undeclared, ctx.admin)
        if property_ in ctx.target.omits:
            shown = _FOUND if trial.shows(property_) else _OMITTED
            if ctx.expect(f"{property_.meaning}, which `omits` has", shown, equals=_OMITTED):
                ctx.trail_limit(f"the trail does not record {property_.meaning}")
            return
        if property_ not in trial.missing and (reason := replace(ctx.target, trial=trial).lacking(property_)):
            raise NotApplicableError(reason)
        found = _AS_DECLARED if property_ is Recorded.UNDECLARED else _FOUND
        ctx.expect(property_.meaning, trial.missing.get(property_, found), equals=found)

    return shown


def _with_control(property_: Recorded) -> tuple[Check, Control]:
    """Return the check that shows a property, and its control."""
    claim, severity, broken = _PROPERTIES[property_]
    shown = _shown_by(property_, claim, severity)

    @breaks(shown, at=property_.meaning)
    def lost_when_read(ctx: CheckContext) -> None:
        ctx.target = replace(ctx.target, observed=broken)

    return shown, lost_when_read


ACTOR = _with_control(Recorded.ACTOR)
TRANSACTION_ID = _with_control(Recorded.TRANSACTION_ID)
INSERTS = _with_control(Recorded.INSERTS)
UPDATES = _with_control(Recorded.UPDATES)
DELETES = _with_control(Recorded.DELETES)
IMAGE = _with_control(Recorded.IMAGE)
ORDER = _with_control(Recorded.ORDER)

undeclared = _shown_by(
    Recorded.UNDECLARED, "a write without an actor is refused exactly where the target file says so", P0
)


@breaks(undeclared, at=Recorded.UNDECLARED.meaning)
def refused_and_not_required(ctx: CheckContext) -> None:
    ctx.tamper("audit_transactions", "IF NEW.actor_ref IS NULL THEN RAISE EXCEPTION 'no user set'; END IF")


@breaks(undeclared, at=Recorded.UNDECLARED.meaning)
def required_and_not_refused(ctx: CheckContext) -> None:
    claim_required(ctx)
