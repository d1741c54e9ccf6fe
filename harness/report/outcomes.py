"""What happens to features, in words, and the one count of rows that every output prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct, field

from harness.model import Behaviour, EndedBy, Status, spelled

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.model import FeatureOutcome, PlannedCheck, Result

#: the area of rows about drivers; every other row with a feature belongs to the feature map
DRIVERS = "drivers"

#: the marks of an outcome: what the product's documentation and issue tracker say about it
DOCUMENTED, BETTER = "documented", "better than documented"
#: and the older version
BETTER_THAN = "better than in"
KNOWN_DEFECT, ACCEPTED, UNDOCUMENTED = "known defect", "known Issue", "Issue"


class Word(Struct, frozen=True):
    """One word for what happens to a feature.

    :param behaviour: the word itself.
    :param meaning: its meaning for an application, without a full stop.
    """

    behaviour: Behaviour
    meaning: str


#: in the order in which every output counts them
WORDS = (
    Word(Behaviour.WORKS, "it does what the row says"),
    Word(Behaviour.FAILS, "an error, shown with its SQLSTATE; with closed, the client also loses its connection"),
    Word(Behaviour.HANGS, "no answer within the deadline"),
    Word(Behaviour.LEAKS, "no error, and state or data of one client reaches another"),
    Word(Behaviour.LOST, "no error, and no effect"),
    Word(Behaviour.WRONG, "no error, and a wrong result"),
)


#: what an application notices nothing of
SILENT = frozenset({Behaviour.LEAKS, Behaviour.LOST, Behaviour.WRONG})


class OutcomeCount(Struct, frozen=True, kw_only=True):
    """How many features of one topology have each outcome, documented or not."""

    works: int = 0
    fails: int = 0
    hangs: int = 0
    leaks: int = 0
    lost: int = 0
    wrong: int = 0
    #: those of them that are a defect in the product's issue tracker
    known_defects: int = 0
    #: those of them that the product does not document: Issues, accepted or not
    undocumented: int = 0
    #: those of them that work although the product documents a limit
    better: int = 0
    #: features without an outcome, because their row is N/A or Not run
    unobserved: int = 0

    @property
    def observed(self) -> int:
        """The number of features with an outcome."""
        return sum(getattr(self, word.behaviour) for word in WORDS)

    def __str__(self) -> str:
        """Return the counts in one line: `works=32 fails=23 lost=9 (3 known defects)`."""
        counted = " ".join(
            f"{word.behaviour}={number}"
            for word in WORDS
            if (number := getattr(self, word.behaviour)) or word.behaviour is Behaviour.WORKS
        )
        apart = [
            f"{number} {noun}"
            for number, noun in (
                (self.undocumented, "undocumented"),
                (self.known_defects, f"known defect{'s' if self.known_defects > 1 else ''}"),
                (self.better, BETTER),
            )
            if number
        ]
        return f"{counted} ({', '.join(apart)})" if apart else counted


class Count(Struct, frozen=True, kw_only=True):
    """How many rows of one topology have each status, and what happens to its features."""

    ok: int
    #: those of the OK rows that observed a documented limit: as documented, which is not "works"
    limits: int = 0
    issue: int
    #: those of the Issues that are known
    known: int
    #: those of the Issues that are in quarantine and not known
    quarantined: int = 0
    #: rows, whatever their status, that were OK in some attempts and an Issue in others
    flaky: int = 0
    na: int
    #: rows that are owed and Not run
    not_run: int
    #: those of them whose run was interrupted
    interrupted: int = 0
    #: rows that are Not run by design, so that nobody owes them an answer
    out_of_scope: int = 0
    features: OutcomeCount = field(default_factory=OutcomeCount)
    drivers: OutcomeCount = field(default_factory=OutcomeCount)

    @property
    def because(self) -> str:
        """What follows the number of rows that are Not run, if an interruption is a cause."""
        return because_interrupted(self.interrupted, self.not_run)


def because_interrupted(interrupted: int, not_run: int) -> str:
    """Return what follows a number of rows that are Not run: `, 3 of them because the run was interrupted`.

    :param interrupted: those of them whose run was interrupted.
    :return: "" if there are none.
    """
    some = f"{interrupted} of them " if interrupted < not_run else ""
    return f", {some}because the run was interrupted" if interrupted else ""


def is_interrupted(result: Result) -> bool:
    """Return whether a row is Not run because its run was interrupted."""
    return result.status is Status.NOT_RUN and result.ended_by is EndedBy.INTERRUPTION


def count(rows: Iterable[tuple[PlannedCheck, Result]]) -> Count:
    """Count the rows of one topology: the only count there is, for the recap and every document."""
    rows = tuple(rows)
    statuses = [result.status for planned, result in rows if is_shown(planned, result)]
    accepted = [accepted_as(result) for _, result in rows]
    return Count(
        ok=statuses.count(Status.OK),
        limits=sum(result.status is Status.OK and result.limit is not None for _, result in rows),
        issue=statuses.count(Status.ISSUE),
        known=accepted.count("known"),
        quarantined=accepted.count("quarantined"),
        flaky=sum(result.flaky for _, result in rows),
        na=statuses.count(Status.NA),
        not_run=statuses.count(Status.NOT_RUN),
        interrupted=sum(is_interrupted(result) for planned, result in rows if is_shown(planned, result)),
        out_of_scope=len(rows) - len(statuses),
        features=_count_outcomes(result for planned, result in rows if planned.feature and planned.area != DRIVERS),
        drivers=_count_outcomes(result for planned, result in rows if planned.feature and planned.area == DRIVERS),
    )


def _count_outcomes(results: Iterable[Result]) -> OutcomeCount:
    results = tuple(results)
    found = [outcome.observed.behaviour for result in results if (outcome := outcome_of(result))]
    marks = [mark_of(result) for result in results]
    return OutcomeCount(
        **{word.behaviour.value: found.count(word.behaviour) for word in WORDS},
        known_defects=marks.count(KNOWN_DEFECT),
        undocumented=marks.count(UNDOCUMENTED) + marks.count(ACCEPTED),
        better=marks.count(BETTER),
        unobserved=len(results) - len(found),
    )


def is_shown(planned: PlannedCheck, result: Result) -> bool:
    """Return whether a row is printed: it has a result, or it owes one. What nobody owes is not printed as Not run."""
    return result.status is not Status.NOT_RUN or planned.owed


# --- one outcome -----------------------------------------------------------------------------------------


def outcome_of(result: Result) -> FeatureOutcome | None:
    """Return the outcome of a feature; None for other rows, and for rows that are N/A or Not run."""
    return result.feature if result.status is Status.OK or result.status is Status.ISSUE else None


def word_of(result: Result) -> str:
    """Return the word for what happens to a feature, such as `lost`; "" without an outcome."""
    outcome = outcome_of(result)
    return outcome.observed.behaviour.value if outcome else ""


def text_of(result: Result) -> str:
    """Return the word with its details, such as `fails (26000, closed)`; "" without an outcome."""
    outcome = outcome_of(result)
    return str(outcome.observed) if outcome else ""


def mark_of(result: Result) -> str:
    """Return what is known about the outcome of a feature; "" if it works as documented, or without an outcome."""
    outcome = outcome_of(result)
    if outcome is None:
        return ""
    if result.status is Status.OK:
        if outcome.better:
            return BETTER
        if outcome.better_than:
            return f"{BETTER_THAN} {outcome.better_than.partition(':')[0]}"
        return "" if outcome.observed.behaviour is Behaviour.WORKS else DOCUMENTED
    if outcome.defect:
        return KNOWN_DEFECT
    return ACCEPTED if result.known else UNDOCUMENTED


def accepted_as(result: Result) -> str:
    """Return why an Issue does not count: `known`, `quarantined`, or "" for one that counts."""
    if result.status is not Status.ISSUE or result.gates:
        return ""
    return "known" if result.known else "quarantined"


def reliability_of(result: Result) -> str:
    """Return how far the verdict of a row can be relied on, in words; "" for a row that was tried once and counts."""
    counts, entry = result.repetition, result.quarantine
    flaky = f"flaky: {counts}, failure rate {spelled(counts.bound)}" if counts and counts.flaky else ""
    apart = f"in quarantine until {entry.expires} (owner {entry.owner}, {entry.link})" if entry else ""
    return "; ".join(filter(None, (flaky, apart)))


def describe(planned: PlannedCheck, result: Result) -> str:
    """Return what happens to a feature in one sentence without a full stop; "" without an outcome."""
    outcome, mark = outcome_of(result), mark_of(result)
    if outcome is None:
        return ""
    where = f"{planned.feature}: {outcome.observed} in {planned.target}"
    if mark.startswith(BETTER_THAN):
        return f"{where}, {BETTER_THAN} {outcome.better_than}"
    source = f" ({outcome.source})" if outcome.source else ""
    expected = " or ".join(map(str, outcome.expected))
    return {
        "": where,
        DOCUMENTED: f"{where}, as documented{source}",
        BETTER: f"{where}, better than documented: {expected}{source}",
        KNOWN_DEFECT: f"{where}, expected {expected}: a known defect{source}",
        ACCEPTED: f"{where}, expected {expected}: an accepted Issue",
        UNDOCUMENTED: f"{where}, expected {expected}: not documented",
    }[mark]
