"""Whole commands as users run them: of this tree and, with --beside, of another commit in turn."""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from tests.bench.costs import cost_tables
from tests.bench.figures import Table, verdict
from tests.bench.trees import run_child

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.store import StoredRun
    from tests.bench.setting import Scale, Setting
    from tests.bench.trees import Tree


class Job(Struct, frozen=True, kw_only=True):
    """A command that is measured as a whole."""

    title: str
    #: arguments of the harness, without topologies and selection
    command: tuple[str, ...]
    #: arguments used instead when only some topologies or checks are measured
    narrow: tuple[str, ...]
    bound_s: float
    #: bound of the time divided by the time of the other commit
    bound_ratio: float
    #: the suites that there were when the bound was set; they are measured once more, alone. Empty when all count
    bound_suites: tuple[str, ...] = ()
    #: whether the cost of its checks is printed, too
    costs: bool = False


_VERIFY = ("verify",)
#: later suites start job engines and crash servers: they take as long as all of these. Some topologies declare fewer
#: suites, and run more of them when they are named, so only jobs on chosen topologies can measure these
_BOUND_SUITES = (
    *("actor", "capture", "continuity", "drivers", "environment", "export"),
    *("observability", "path", "pooling", "redaction", "retention"),
)
RUN = Job(
    title="run: the main job, all suites on all topologies",
    command=("report", "--complete", "--fresh"),
    narrow=_VERIFY,
    bound_s=100.0,
    bound_ratio=0.4,
    costs=True,
)
THREE = Job(
    title="three: all suites on direct, session and transaction",
    command=_VERIFY,
    narrow=_VERIFY,
    bound_s=50.0,
    bound_ratio=0.35,
    bound_suites=_BOUND_SUITES,
)
ONE = Job(
    title="one: all suites on transaction, environment and images present",
    command=_VERIFY,
    narrow=_VERIFY,
    bound_s=25.0,
    bound_ratio=1.0,
    bound_suites=_BOUND_SUITES,
    costs=True,
)
PROVE = Job(
    title="prove: every check under its controls, on all topologies",
    command=("prove",),
    narrow=("prove",),
    bound_s=600.0,
    bound_ratio=0.5,
)


def measure_job(job: Job, setting: Setting, scale: Scale) -> Iterator[Table]:
    """Yield the median seconds of each tree over interleaved rounds, then the cost of the checks in the last run."""
    for tree in setting.trees:
        _prepare(tree, setting)
    seconds: dict[str, list[float]] = {tree.name: [] for tree in setting.trees}
    last: dict[str, StoredRun] = {}
    for number in range(scale.rounds):
        # alternate which tree runs first, so that neither always has the warmer caches
        for tree in setting.trees if number % 2 == 0 else reversed(setting.trees):
            setting.say(f"{job.title.partition(':')[0]}: {tree.name}, round {number + 1} of {scale.rounds}")
            took, last[tree.name] = _timed(job, tree, setting, scale)
            seconds[tree.name].append(took)
    rows = []
    for tree in setting.trees:
        bound = verdict(statistics.median(seconds[tree.name]), job.bound_s) if tree is setting.trees[0] else ""
        rows.append(_row(tree.name, statistics.median(seconds[tree.name]), bound, last[tree.name]))
    notes = [_rounds(scale)]
    if job.bound_suites and not scale.selection:
        setting.say(f"{job.title.partition(':')[0]}: the suites of the bound")
        suites = tuple(f"--suite={suite}" for suite in job.bound_suites)
        took, run = _timed(job, setting.trees[0], setting, replace(scale, selection=suites))
        rows.append(_row(f"{setting.trees[0].name}, suites of the bound", took, verdict(took, job.bound_s), run))
        notes.append(f"The bound was set for the suites {', '.join(job.bound_suites)}: the last row, run once.")
    if len(setting.trees) > 1:
        ours, theirs = (statistics.median(seconds[tree.name]) for tree in setting.trees)
        notes.append(f"Ratio {ours / theirs:.2f} ({verdict(ours / theirs, job.bound_ratio, '')}).")
    yield Table(
        title=job.title,
        columns=("Tree", "Median", "Bound", "Checks exercised", "Per check"),
        rows=tuple(rows),
        notes=tuple(notes),
    )
    if job.costs:
        name = setting.trees[0].name
        yield from cost_tables(job.title.partition(":")[0], last[name], seconds[name][-1])


def _row(name: str, took_s: float, bound: str, run: StoredRun) -> tuple[str, ...]:
    checks = _exercised(run)
    return name, f"{took_s:.1f} s", bound, str(checks), f"{took_s / max(checks, 1) * 1000:.0f} ms"


def _timed(job: Job, tree: Tree, setting: Setting, scale: Scale) -> tuple[float, StoredRun]:
    narrow = bool(scale.topologies or scale.selection)
    took, run = setting.run(tree, *(job.narrow if narrow else job.command), *scale.topologies, *scale.selection)
    # another commit may have written it in another format; then some of its rows can be missing
    if not any(row.expectations for row in run.results):
        sys.stderr.write(f"bench: {tree.name}: the run {run.record.run_id} exercised no check\n")
    return took, run


def _exercised(run: StoredRun) -> int:
    """Count executions: checks, checks under their controls, and checks under breaks of the audit trail."""
    return (
        sum(bool(row.expectations) for row in run.results)
        + len(run.proofs)
        + sum(proof.tried for proof in run.trail_proofs)
    )


def _prepare(tree: Tree, setting: Setting) -> None:
    """Build every image of a tree, and compile its modules, before anything is timed."""
    if tree.name in setting.prepared:
        return
    setting.prepared.add(tree.name)
    if setting.engine.name == "docker":
        setting.say(f"images of {tree.name}")
        with tempfile.TemporaryDirectory() as folder:
            tree.harness(Path(folder), "images", allowed=(0,))
    # a fresh checkout has no byte code
    run_child(
        [tree.python, "-m", "compileall", "-q", str(tree.folder / "harness")],
        folder=tree.folder,
        environment=tree.environment(),
    )


def _rounds(scale: Scale) -> str:
    times = "once" if scale.rounds == 1 else f"{scale.rounds} times, interleaved; the median"
    selection = f", with {' '.join(scale.selection)}" if scale.selection else ""
    topologies = f", on {', '.join(scale.topologies)}" if scale.topologies else ""
    return f"Run {times}{topologies}{selection}; from the start of the process to its end, report included."
