"""Every check, with its claim, severity, needs and controls, and every break of the audit trail."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.audit.actor_convention import IdType
from harness.checks.registry import Check, Safety
from harness.mutants.observed import MUTATIONS
from harness.report.escape import code
from harness.suites.catalogue import catalogue
from tests.reference.markdown import page, prose, table

if TYPE_CHECKING:
    from harness.checks.collection import Catalogue
    from harness.mutants.observed_mutation import Mutation

_INTRODUCTION = """
A check states one property of the system under test. Its claim is true when the check is OK. A control is a deliberate
break that must turn the check to Issue, at the expectation after the colon; `nox -s prove` tries each of them.

- **P**: severity of an Issue. P0 is wrong or missing data, or security; P1 is operational friction or documentation; P2
  is residual depth. For a feature of PostgreSQL, the outcome decides.
- **Needs**: capabilities of a topology ([Reference](../reference.md#capabilities)), claims of an audit target,
  [properties](../audit-targets.md#properties) that its trail must have, or the scope of its actor. A check is N/A where
  one of them is missing. *environment* marks a check that may also run in an environment that others use, and what it
  does there: it reads, writes to the canary table or the scratch schema, or runs a declared path.

A check *on demand* runs only if it or its suite is named: its answer adds to those of the main job.

The paths and commands that `harness.toml` declares are checks, too, in the suites `path` and `command`.
"""


def document() -> str:
    found = catalogue()
    suites = []
    for suite in found.suites():
        checks = [check for check in found.checks if check.id.partition(".")[0] == suite]
        suites += [f"## {suite}", _summary(checks), _suite(checks, found)]
    return page(
        "Checks",
        _INTRODUCTION.strip(),
        *suites,
        "## Breaks of the audit trail",
        _trail_breaks(found),
        "## Mutations of rows of the trail",
        _mutations(),
    )


def _summary(checks: list[Check]) -> str:
    sections = ", ".join(dict.fromkeys(f"`{check.section}`" for check in checks))
    return f"{len(checks)} checks, in section {sections} of the report."


def _suite(checks: list[Check], found: Catalogue) -> str:
    rows = [
        (
            code(check.id),
            check.severity.value,
            prose(check.claim) + (" (on demand)" if check.on_demand else ""),
            ", ".join(_needs(check)),
            "; ".join(f"{code(control.name)}: {prose(control.at)}" for control in found.controls_of(check.id)),
        )
        for check in checks
    ]
    return table(("Check", "P", "Claim", "Needs", "Controls: expectation"), rows)


def _needs(check: Check) -> list[str]:
    return [
        *(prose(need.name) for need in check.needs),
        *(f"claim: {code(feature.value)}" for feature in check.requires_features),
        *(f"property: {code(recorded.value)}" for recorded in check.records),
        *([f"actor of the {check.scope}"] if check.scope else []),
        *([f"environment: {check.environment_safety}"] if check.environment_safety is not Safety.NO else []),
    ]


def _trail_breaks(found: Catalogue) -> str:
    introduction = (
        "`nox -s prove` breaks the trail itself, too. Under each break, exactly the listed checks must become Issue."
    )
    rows = [
        (code(trail_break.name), prose(trail_break.what), ", ".join(code(check) for check in sorted(trail_break.turns)))
        for trail_break in found.trail_breaks
    ]
    return introduction + "\n\n" + table(("Break", "Effect on the trail", "Checks that become Issue"), rows)


def _needs_of(mutation: Mutation) -> list[str]:
    return [
        *([f"claim: {code(mutation.feature.value)}"] if mutation.feature else []),
        *([f"property: {code(mutation.records.value)}"] if mutation.records else []),
        *([f"ids of actors: {code(IdType.TEXT.value)}"] if mutation.text_ids else []),
    ]


def _mutations() -> str:
    introduction = (
        "`harness prove` changes the rows that checks read from the audit trail, one mutation at a time, for any audit "
        "target ([Audit targets](../audit-targets.md#proven-for-your-trail)). At least one check must become Issue."
    )
    rows = [
        (
            code(mutation.name),
            prose(mutation.what),
            prose(mutation.sound) or ", ".join(_needs_of(mutation)),
        )
        for mutation in MUTATIONS
    ]
    return introduction + "\n\n" + table(("Mutation", "A trail that …", "Left out unless, or because"), rows)
