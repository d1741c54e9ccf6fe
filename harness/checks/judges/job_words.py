"""The words of a row of job engines, for the table: what was observed, in short."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from harness.checks.judges import jobs as judged
from harness.checks.judges.job_history import Jobs
from harness.job_engines.target_file import Case

if TYPE_CHECKING:
    from harness.checks.judges.job_state import JobsState
    from harness.model import Expectation
    from harness.model.history import History

#: what a row of the table says where everything is as it should be
WORKS = "works"
#: words for the table, of expectations whose names are long
SHORT = {
    judged.EARLY: "taken over early",
    judged.KEPT_BY_FROZEN: "not taken over",
    judged.STALE: "stale result counts",
    judged.AGAIN: "begun again",
    judged.KEPT: "silent job kept",
    judged.RENEWED: "renewed job taken over",
    judged.STATES: "other states",
    judged.ATTEMPTS: "other attempts",
    judged.FORBIDDEN: "begun, must not",
    judged.UNAPPROVED: "unapproved",
    judged.WINDOWS: "cron twice",
    judged.NO_WINDOW: "no cron",
    judged.ORDER: "parent ends first",
    judged.CHANGES: "changes missing",
    judged.ACTOR: "other actor",
    judged.CORRELATION: "no correlation",
    judged.JOB: "no job id",
    judged.LOCKS: "locks left",
    judged.TRANSACTIONS: "transactions left open",
    judged.PINNED: "connections kept",
    judged.STATEMENTS: "statements left",
    judged.CHANNELS: "channels left",
    judged.LATE_FAILED: "late enqueues failed",
}
#: exits of workers that make a crash loop
_LOOP = 4
#: an idle worker that begins jobs later than next to the pooler by this much, at the median, is named, seconds
_NAMED_S = 0.3


def outcome(history: History, state: JobsState, expectations: tuple[Expectation, ...]) -> str:
    """Return what a row of the table says, such as `works`, `twice 3`, `stuck 4 h` or `crash loop (42P05)`.

    `begins 0.6 s later` is within the margin of the case: it says what the pooler costs.
    """
    jobs = Jobs(history, state)
    seen = {found.name: found.observed for found in expectations if found.observed not in {"0", "yes"}}
    states = Counter(code for end in state.exits for code in end.sqlstates).most_common(1)
    code = f" ({states[0][0]})" if states else ""
    words = []
    if judged.INSTALLED in seen:
        words.append(f"cannot install{_code(state.not_installed)}")
    if judged.NOT_ENQUEUED in seen:
        words.append(f"cannot enqueue {seen[judged.NOT_ENQUEUED]}{_code(jobs.refused[0])}")
    if judged.LOOPS in seen or (judged.EXITS in seen and (state.given_up or len(state.exits) >= _LOOP)):
        words.append(f"crash loop{code}")
    elif judged.EXITS in seen:
        words.append(f"exits {seen[judged.EXITS]}{code}")
    never = (
        judged.IDLE in seen and not state.unsettled and not all(jobs.count(key, "begin") for key in jobs.acknowledged)
    )
    if not never and (judged.LOST in seen or judged.LATE_LOST in seen or judged.UNFINISHED in seen):
        words.append(
            f"lost {sum(int(seen.get(name, 0)) for name in (judged.LOST, judged.LATE_LOST, judged.UNFINISHED))}"
        )
    if judged.STUCK in seen and not never:
        lease = state.settings.lease_s
        words.append(f"stuck {_duration(lease)}" if lease and lease > state.waited_s else f"stuck {seen[judged.STUCK]}")
    if judged.IDLE in seen or judged.SLOWER in seen:
        words.append("never begins" if never or not jobs.pick_ups else f"idle {_duration(max(jobs.pick_ups))}")
    if judged.WAITED in seen:
        words.append(f"idle {_duration(max(jobs.waits))}")
    if state.case is Case.FAULTS or judged.TWICE in seen:
        words += [f"twice {len(jobs.twice)}"] if jobs.twice else []
    named = {
        judged.INSTALLED,
        judged.NOT_ENQUEUED,
        judged.LOOPS,
        judged.EXITS,
        judged.LOST,
        judged.LATE_LOST,
        judged.UNFINISHED,
        judged.STUCK,
        judged.IDLE,
        judged.SLOWER,
        judged.WAITED,
        judged.TWICE,
    }
    words += [f"{SHORT.get(name, name)}: {seen[name]}" for name in seen if name not in named]
    if not words and state.case is Case.IDLE and (later := jobs.later_s) >= _NAMED_S + state.pause_s:
        words.append(f"begins {later:.1f} s later")
    return ", ".join(words) or WORKS


def _code(text: str) -> str:
    first = text.partition(" ")[0].rstrip(":")
    return f" ({first})" if len(first) == 5 and first.isalnum() else ""  # noqa: PLR2004 -- an SQLSTATE


def _duration(seconds: float) -> str:
    """Return a duration as a table shows it."""
    if seconds < 120:  # noqa: PLR2004 -- two minutes
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"  # noqa: PLR2004 -- two hours
