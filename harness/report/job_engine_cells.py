"""One cell of the table of job engines: all cases of the suite `jobs` for one engine, one variant and one topology.

It says `works` only if the case `works` was exercised, and no case is an Issue, a documented limit, or open.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from harness.job_engines.target_file import Case
from harness.model import JobLabel, Status
from harness.report.evidence import worst
from harness.report.feature_map import anchor
from harness.report.outcomes import accepted_as
from harness.report.section_words import numbered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from harness.model import Result
    from harness.report.evidence import Row

WORKS = "works"
#: facts of a row: the word of its cell, and what to do instead, with its source
OUTCOME, INSTEAD, SOURCE = "outcome", "instead", "source"
#: the kinds of a word, worst first
ISSUE, ACCEPTED, LIMIT, OPEN, OBSERVED = "issue", "known", "limit", "notrun", "observed"
TONES = (ISSUE, ACCEPTED, LIMIT, OPEN, OBSERVED, WORKS)
#: marks of a word
_FLAKY, _QUARANTINED, LIMITED = "flaky", "in quarantine", "documented limit"
#: what a case observed, the most harmful first; an outcome may have several, such as `exits 2 (57P01), lost 1`
_HARM = tuple(
    re.compile(rf"(^|, ){word}\b")
    for word in ("lost", "stuck", "never", "crash loop", "cannot", "idle", "exits", "twice")
)
#: words of a cell
_MOST_WORDS = 3
_CASES = [case.value for case in Case]


class JobWord(Struct, frozen=True, kw_only=True):
    """What one or more cases observed, in one word, with the first row that says it."""

    #: such as `stuck 4 h`
    text: str
    #: `works`, `observed` (as promised, such as `twice 3`), `notrun`, `limit`, `known` or `issue`
    tone: str
    #: `Issue`, `known Issue`, `Issue in quarantine` or `documented limit`, and whether the verdict is not reliable
    mark: str = ""
    cases: tuple[str, ...]
    #: where its evidence is
    target: str
    check: str
    anchor: str


class JobEngineCell(Struct, frozen=True, kw_only=True):
    """One job engine with its settings, in one topology."""

    #: the worst of the cases that apply
    status: Status
    #: worst first, at most three; without one, `note` says why
    words: tuple[JobWord, ...]
    #: the number of words that were left out
    more: int = 0
    #: the cases that ran
    ran: tuple[str, ...] = ()
    #: the cases that are Not run
    not_run: tuple[str, ...] = ()
    #: why there is no word, such as the reason of the cases that are Not run
    note: str = ""
    #: whether it works: the case `works` ran, and no case is an Issue, a documented limit, unreliable or Not run
    works: bool = False
    #: whether it does its jobs: the case `works` is OK, without a documented limit; other cases may say anything
    does_jobs: bool = False


def label(row: Row) -> JobLabel:
    """Return the job engine of a row that has one."""
    assert row.planned.job is not None
    return row.planned.job


def outcome_of_case(row: Row) -> str:
    """Return what a case observed, if that is not simply `works`; "" otherwise, and for a row of another suite."""
    outcome = row.result.facts.get(OUTCOME, "") if row.planned.job else ""
    return "" if outcome == WORKS or row.status not in {Status.OK, Status.ISSUE} else outcome


def job_engine_cell(rows: Sequence[Row]) -> JobEngineCell:
    """Return the cell of all cases of one engine, one variant and one topology."""
    counted = [row for row in rows if row.status is not Status.NA]
    missing = [row for row in counted if row.status is Status.NOT_RUN]
    ran = [row for row in counted if row.status is not Status.NOT_RUN]
    not_run = tuple(label(row).case for row in missing)
    if not ran:
        status = Status.NOT_RUN if counted else Status.NA
        return JobEngineCell(status=status, words=(), not_run=not_run, note=_reason(counted or rows))
    words = _merged(sorted((word for row in ran if (word := word_of_case(row))), key=_rank(rows)))
    broken = any(word.tone != OBSERVED for word in words)
    begins = next((row for row in ran if label(row).case == Case.WORKS), None)
    note = ""
    if not broken and begins is None:
        words = (*words, _without_works(ran))
        note = "" if WORKS in not_run else f"the case {WORKS} was not tried"
    elif not broken and begins is not None:
        tone = OPEN if missing else WORKS
        words = (_word_of(begins, WORKS, tone), *words)
    return JobEngineCell(
        status=worst(row.status for row in counted),
        words=words[:_MOST_WORDS],
        more=len(words[_MOST_WORDS:]),
        ran=cases_of(ran),
        not_run=not_run,
        note=note,
        works=not broken and begins is not None and not missing,
        does_jobs=begins is not None and _is_as_promised(begins),
    )


def _is_as_promised(row: Row) -> bool:
    """Return whether a case that ran is OK, reliably and without a documented limit."""
    word = word_of_case(row)
    return word is None or word.tone == OBSERVED


def _reason(rows: Sequence[Row]) -> str:
    """Return the most frequent reason, and how many others the rows have."""
    reasons = Counter(row.result.reason for row in rows)
    [(reason, _)] = reasons.most_common(1)
    others = f"; {len(reasons) - 1} more in the evidence" if len(reasons) > 1 else ""
    return f"{reason}{others}"


def word_of_case(row: Row) -> JobWord | None:
    """Return what one case observed; None if it simply works."""
    result, case, outcome = row.result, label(row).case, outcome_of_case(row)
    unreliable = [mark for mark, has in ((_QUARANTINED, result.quarantine), (_FLAKY, result.flaky)) if has]
    if row.status is Status.ISSUE or result.limit:
        kind = kind_of(result)
        tone = LIMIT if kind == LIMITED else ISSUE if kind == Status.ISSUE else ACCEPTED
        marks = [mark for mark in unreliable if not kind.endswith(mark)]  # an Issue in quarantine says so itself
        return _word_of(row, outcome or case, tone, ", ".join((kind, *marks)))
    if unreliable:
        return _word_of(row, outcome or f"{case}: OK", OPEN, ", ".join(unreliable))
    if not all(expectation.counts for expectation in result.expectations):
        return _word_of(row, f"{case}: not judged to its end", OPEN)
    return _word_of(row, outcome, OBSERVED) if outcome else None


def kind_of(result: Result) -> str:
    """Return `Issue`, `known Issue`, `Issue in quarantine`, `documented limit`, or `as promised` for any other OK."""
    if result.status is Status.ISSUE:
        return {"known": "known Issue", "quarantined": "Issue in quarantine"}.get(accepted_as(result), Status.ISSUE)
    return LIMITED if result.limit else "as promised"


def _word_of(row: Row, text: str, tone: str, mark: str = "") -> JobWord:
    return JobWord(
        text=text,
        tone=tone,
        mark=mark,
        cases=(label(row).case,),
        target=row.planned.target,
        check=row.planned.check,
        anchor=anchor(row),
    )


def _without_works(ran: Sequence[Row]) -> JobWord:
    return replace(_word_of(ran[0], f"{numbered(ran, 'case')} OK", OPEN), cases=cases_of(ran))


def place_of_case(name: str) -> int:
    """Return the place of a case among all, for an order that is the same in each report."""
    return _CASES.index(name) if name in _CASES else len(_CASES)


def cases_of(rows: Iterable[Row]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(label(row).case for row in rows))


def _rank(rows: Iterable[Row]) -> Callable[[JobWord], tuple[int, str, int, int]]:
    """Return the key of the worst word: by tone, severity and harm, then in the order of the cases."""
    severities = {row.planned.check: row.result.severity or row.planned.severity for row in rows}

    def key(word: JobWord) -> tuple[int, str, int, int]:
        harm = next((place for place, kind in enumerate(_HARM) if kind.search(word.text)), len(_HARM))
        return TONES.index(word.tone), severities[word.check], harm, place_of_case(word.cases[0])

    return key


def _merged(words: Iterable[JobWord]) -> tuple[JobWord, ...]:
    """Return words in their order, those with the same text and mark once: with all of their cases."""
    found: dict[tuple[str, str, str], list[JobWord]] = {}
    for word in words:
        found.setdefault((word.text, word.tone, word.mark), []).append(word)
    return tuple(
        replace(first, cases=tuple(case for word in (first, *others) for case in word.cases))
        for first, *others in found.values()
    )
