"""Whole commands as users run them, by this tree and, with --beside, by another commit alternately."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.store import StoredRun, read_run
from tests.bench.costs import cost_tables
from tests.bench.figures import Table, verdict
from tests.bench.trees import run_child

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.bench.setting import Scale, Setting
    from tests.bench.trees import Tree


class Job(Struct, frozen=True, kw_only=True):
    """A command that is measured as a whole."""

    title: str
    #: the command of the harness, before topologies and selection
    command: tuple[str, ...]
    #: the command that stands for it where less is measured
    narrow: tuple[str, ...]
    bound_s: float
    #: of the time of the other commit
    bound_ratio: float
    #: whether what its checks cost is printed, too
    costs: bool = False


_VERIFY = ("verify",)
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
)
ONE = Job(
    title="one: all suites on transaction, environment and images present",
    command=_VERIFY,
    narrow=_VERIFY,
    bound_s=25.0,
    bound_ratio=1.0,
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
    """Yield seconds by tree, the medians over rounds that take turns, and what the checks of the last run cost."""
    for tree in setting.trees:
        _prepare(tree, setting)
    seconds: dict[str, list[float]] = {tree.name: [] for tree in setting.trees}
    last: dict[str, StoredRun] = {}
    for number in range(scale.rounds):
        # the tree that goes first changes, so that none has the warmer caches always
        for tree in setting.trees if number % 2 == 0 else reversed(setting.trees):
            setting.say(f"{job.title.partition(':')[0]}: {tree.name}, round {number + 1} of {scale.rounds}")
            took, last[tree.name] = _timed(job, tree, setting, scale)
            seconds[tree.name].append(took)
    rows = []
    for tree in setting.trees:
        took, run = statistics.median(seconds[tree.name]), last[tree.name]
        checks = _exercised(run)
        bound = verdict(took, job.bound_s) if tree is setting.trees[0] else ""
        rows.append((tree.name, f"{took:.1f} s", bound, str(checks), f"{took / max(checks, 1) * 1000:.0f} ms"))
    notes = [_rounds(scale)]
    if len(setting.trees) > 1:
        ours, theirs = (statistics.median(seconds[tree.name]) for tree in setting.trees)
        notes.append(f"Ratio {ours / theirs:.2f} ({verdict(ours / theirs, job.bound_ratio, '')}).")
    yield Table(
        title=job.title,
        columns=("Tree", "Median", "Bound", "Checks exercised", "A check"),
        rows=tuple(rows),
        notes=tuple(notes),
    )
    if job.costs:
        name = setting.trees[0].name
        yield from cost_tables(job.title.partition(":")[0], last[name], seconds[name][-1])


def _timed(job: Job, tree: Tree, setting: Setting, scale: Scale) -> tuple[float, StoredRun]:
    narrow = bool(scale.topologies or scale.selection)
    command = [*(job.narrow if narrow else job.command), *scale.topologies, *scale.selection]
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        tree.harness(Path(folder), *command, "--engine", setting.engine.name, allowed=(0, 1))
        return time.perf_counter() - began, _read(tree, Path(folder) / "reports" / "runs" / "latest")


def _read(tree: Tree, folder: Path) -> StoredRun:
    """Read a run that may be of another version of the store, as far as this one can."""
    run = read_run(folder.resolve())
    if not any(row.expectations for row in run.results):
        sys.stderr.write(f"bench: {tree.name}: no check was exercised in {folder}\n")
    return run


def _exercised(run: StoredRun) -> int:
    """Count what was run: checks, each control of each, and each check under each break of the trail."""
    return (
        sum(bool(row.expectations) for row in run.results)
        + len(run.proofs)
        + sum(broken.tried for broken in run.trail_proofs)
    )


def _prepare(tree: Tree, setting: Setting) -> None:
    """Build every image of a tree before anything is timed."""
    if tree.name in setting.prepared:
        return
    setting.prepared.add(tree.name)
    if setting.engine.name == "docker":
        setting.say(f"images of {tree.name}")
        with tempfile.TemporaryDirectory() as folder:
            tree.harness(Path(folder), "images", allowed=(0,))
    # byte code, too: a fresh checkout has none
    run_child(
        [tree.python, "-m", "compileall", "-q", str(tree.folder / "harness")],
        folder=tree.folder,
        environment=tree.environment(),
    )


def _rounds(scale: Scale) -> str:
    times = "once" if scale.rounds == 1 else f"{scale.rounds} times, in turns; the median"
    what = f", with {' '.join(scale.selection)}" if scale.selection else ""
    where = f", on {', '.join(scale.topologies)}" if scale.topologies else ""
    return f"Run {times}{where}{what}; from the start of the process to its end, report included."
