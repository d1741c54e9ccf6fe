"""The findings about job engines: what was observed, where, and what to do instead."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.report.job_engine_cells import (
    ACCEPTED,
    INSTEAD,
    ISSUE,
    LIMIT,
    OBSERVED,
    SOURCE,
    TONES,
    cases_of,
    kind_of,
    label,
    outcome_of_case,
    word_of_case,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from harness.report.evidence import Row

#: what differs between two outcomes of one kind, such as `idle 27 s` and `idle 25 s`
_NUMBERS = re.compile(r"\s*[\d(][^,]*")


class JobFinding(Struct, frozen=True, kw_only=True):
    """Something that an application must know about a job engine."""

    title: str
    variant: str
    topologies: tuple[str, ...]
    cases: tuple[str, ...]
    #: `Issue`, `known Issue`, `Issue in quarantine`, `documented limit` or `as promised`
    kind: str
    observed: str
    #: what to do instead; "" without advice
    instead: str = ""
    #: the addresses of documentation and issues
    sources: tuple[str, ...] = ()
    #: the first row that shows it
    target: str
    check: str


def job_findings(rows: Sequence[Row]) -> list[JobFinding]:
    """Return the findings of one engine and one variant, worst first.

    Rows with the same kind of outcome, the same advice and the same source are one finding.
    """
    found: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        if word := word_of_case(row):
            said = row.result.facts.get(INSTEAD, ""), row.result.facts.get(SOURCE, "")
            # what was observed as promised is a finding only if something can be done about it
            if word.tone in {ISSUE, ACCEPTED, LIMIT} or (word.tone == OBSERVED and said[0]):
                kind = _NUMBERS.sub("", outcome_of_case(row)) or f"case {label(row).case}"
                limit = row.result.limit
                found.setdefault(
                    (word.tone, kind_of(row.result), kind, *said, limit.outcome if limit else ""), []
                ).append(row)
    findings = sorted(found.items(), key=lambda item: TONES.index(item[0][0]))
    return [_finding(kind, instead, source, rows) for (_, kind, _, instead, source, _), rows in findings]


def _finding(kind: str, instead: str, source: str, rows: Sequence[Row]) -> JobFinding:
    first = rows[0]
    sources = (row.result.limit.source if row.result.limit else "" for row in rows)
    return JobFinding(
        title=label(first).title,
        variant=label(first).variant,
        topologies=tuple(dict.fromkeys(row.planned.target for row in rows)),
        cases=cases_of(rows),
        kind=kind,
        observed=_observed(rows),
        instead=instead,
        sources=tuple(dict.fromkeys(filter(None, (source, *sources)))),
        target=first.planned.target,
        check=first.planned.check,
    )


def _observed(rows: Sequence[Row]) -> str:
    """Return the outcomes, each with its topologies if there are several, and what the first row says about it.

    A reason that begins with the same words as the outcome says it again, with what was expected: one of them is kept.
    If the rows say different things, the topology and the case of the first row are named.
    """
    outcomes: dict[str, dict[str, None]] = {}
    for row in rows:
        if outcome := outcome_of_case(row):
            outcomes.setdefault(outcome, {}).setdefault(row.planned.target)
    texts = [f"{text} in {', '.join(names)}" if len(outcomes) > 1 else text for text, names in outcomes.items()]
    said = [row.result.limit.outcome if row.result.limit else row.result.reason for row in rows]
    example = first = said[0]
    if len({*said}) > 1:
        cases = {label(row).case for row in rows}
        case = f", case {label(rows[0]).case}" if len(cases) > 1 else ""
        example = f"in {rows[0].planned.target}{case}: {first}"
    if _repeats(outcomes, first):
        texts, example = (texts, "") if len(outcomes) > 1 else ([], example)
    return ": ".join(filter(None, ("; ".join(texts), example)))


def _repeats(outcomes: Iterable[str], reason: str) -> bool:
    """Return whether all outcomes, such as `locks left: 2`, name the same thing, with which a reason begins."""
    subjects = {name for outcome in outcomes if (name := _NUMBERS.sub("", outcome).rstrip(": "))}
    return len(subjects) == 1 and reason.casefold().startswith(subjects.pop().casefold())
