"""The jobs of a history, with the questions that the comparisons of each case ask.

The history holds what the harness asked for: jobs enqueued, cancelled, approved, and faults. The final state holds the
effects, which jobs wrote past the pooler, and what the engine says about each job. A job is acknowledged once its
program has reported that its transaction is committed; another one may be there or not, and is not lost.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from harness.checks.judges.job_state import TERMINAL
from harness.job_engines.target_file import Case

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.checks.judges.job_state import Effect, JobsState
    from harness.model.history import History, Outcome

Phase = Literal["enqueued", "begin", "done", "failed", "waiting"]

#: what the engine says about a job that it no longer has, and about one whose result counts
DELETED = "deleted"
ENDED = frozenset({"done", DELETED})
#: the keys of jobs of a second worker, which has the same settings and a direct connection, begin here
TWIN = 100
#: operations of the history, by the client that stands for them
ENQUEUE, LATE, WARM_UP, APPROVE = "enqueue", "enqueue late", "warm up", "approve"
#: the jobs of the case of heartbeats: the first one renews its lease, and the second one does not
RENEWING, SILENT = 1, 2
#: the job that starts the others
PARENT = 1
#: operations after which a job exists
_MAKE = frozenset({ENQUEUE, LATE, "fork", "wait"})
#: an idle worker may be later than it promises by this much, since other programs run on the machine, too
_MARGIN_S = 5.0


class Jobs:
    """The jobs of a history, with the questions that cases ask."""

    def __init__(self, history: History, state: JobsState) -> None:
        self.history = history
        self.state = state
        self.by_key: dict[int, list[Effect]] = defaultdict(list)
        for effect in sorted(state.effects, key=lambda effect: effect.seconds):
            self.by_key[effect.key].append(effect)

    def times(self, key: int, phase: Phase) -> list[float]:
        """Return when a job was in a phase, in order."""
        return [effect.seconds for effect in self.by_key[key] if effect.phase == phase]

    def count(self, key: int, phase: Phase) -> int:
        """Return how often a job was in a phase."""
        return len(self.times(key, phase))

    @cached_property
    def acknowledged(self) -> list[int]:
        """The jobs that must end as `done`, and whose transaction is committed.

        Their program reported it, or the command that made them ended well. Children exist once their parent does.
        """
        made = {int(one.key) for one in self.history.operations if one.operation in _MAKE and one.outcome == "ok"}
        made |= {key for key in self.state.ends if self.count(key, "enqueued")}
        if self.state.case is Case.CHILDREN:
            # a parent that runs may not have started them yet
            made = (
                {PARENT} & made
                if self.state.unsettled
                else made | (self.state.ends.keys() if PARENT in made else set())
            )
        return [key for key, end in self.state.ends.items() if end == "done" and key in made]

    @cached_property
    def late(self) -> set[int]:
        """The jobs that were enqueued after the faults."""
        return {int(one.key) for one in self.history.operations if one.operation == LATE}

    @cached_property
    def refused(self) -> list[str]:
        """The errors of the commands that make jobs, and failed before the faults."""
        early = (_MAKE | {WARM_UP}) - {LATE}
        return [one.error for one in self.history.operations if one.operation in early and one.outcome == "fail"]

    def unanswered(self, operation: str) -> set[int]:
        """The jobs whose command of this kind the harness ended: nobody knows what it did."""
        return self._ended(operation, "unknown")

    def failed(self, operation: str) -> set[int]:
        """The jobs whose command of this kind failed."""
        return self._ended(operation, "fail")

    def _ended(self, operation: str, outcome: Outcome) -> set[int]:
        return {
            int(one.key) for one in self.history.operations if one.operation == operation and one.outcome == outcome
        }

    @cached_property
    def unfinished(self) -> list[int]:
        """The acknowledged jobs without an effect."""
        return [key for key in self.acknowledged if not self.count(key, "done")]

    def is_held(self, key: int) -> bool:
        """Return whether the engine still holds an unfinished job: it waits, or some worker has it.

        Where connections were missing, a job that has failed is not lost: its attempts may have failed for want of one.
        """
        held = {"waiting", "running"}
        if self.state.unsettled == "shortage":
            held |= TERMINAL - ENDED
        return self.state.states.get(key) in held

    @cached_property
    def twice(self) -> list[int]:
        """The jobs whose effect happened more than once."""
        return [key for key in self.state.ends if self.count(key, "done") > 1]

    def begun_after_end(self, key: int, lease_s: float, clock_s: float) -> int:
        """Return how often a job began after the worker that held it last was done with it, within its lease.

        A worker that was taken over is done with nothing, and one that needs longer than its lease may be taken over.
        """
        held: Effect | None = None
        ended: float | None = None
        again = 0
        for effect in self.by_key[key]:
            if effect.phase == "begin":
                again += ended is not None and effect.seconds > ended + clock_s
                held = effect
            elif effect.phase == "done" and held and effect.worker == held.worker and ended is None:
                ended = effect.seconds if effect.seconds + clock_s < held.seconds + lease_s else None
        return again

    @cached_property
    def waits(self) -> list[float]:
        """The seconds from the first answer to an approval to the end of its job, for jobs that ended after it."""
        approved: dict[int, float] = {}
        for one in self.history.operations:
            if one.operation == APPROVE and one.outcome == "ok" and one.answered_s is not None:
                approved[int(one.key)] = min(one.answered_s, approved.get(int(one.key), one.answered_s))
        return [max(0.0, done[0] - at) for key, at in approved.items() if (done := self.times(key, "done"))]

    @property
    def promised_s(self) -> float:
        """Within how many seconds an idle worker begins or goes on, as the engine promises it, with a margin."""
        settings = self.state.settings
        # a notification may come with a new job only: one that was approved is then found by the next poll
        promised = max(settings.idle_s, settings.poll_s) if self.state.case is Case.APPROVE else settings.idle_s
        return promised + _MARGIN_S + self.state.pause_s

    @cached_property
    def pick_ups(self) -> list[float]:
        """The seconds from each acknowledged enqueue to the begin of the job."""
        return self._waits_of(self.acknowledged)

    @cached_property
    def twin_pick_ups(self) -> list[float]:
        """The same of the worker with a direct connection."""
        return self._waits_of([key for key in self.by_key if key > TWIN])

    @property
    def later_s(self) -> float:
        """How much later jobs begin than next to the pooler, at the median, seconds; 0 without both."""
        if not self.pick_ups or not self.twin_pick_ups:
            return 0.0
        return statistics.median(self.pick_ups) - statistics.median(self.twin_pick_ups)

    def _waits_of(self, keys: Iterable[int]) -> list[float]:
        return [
            max(0.0, begun[0] - enqueued[0])
            for key in keys
            if (begun := self.times(key, "begin")) and (enqueued := self.times(key, "enqueued"))
        ]
