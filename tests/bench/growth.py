"""The growth of cost with topologies, with checks, and with evidence."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from harness.suites.catalogue import catalogue
from tests.bench.copies import copy_runs, copy_topologies
from tests.bench.figures import Table, verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.bench.setting import Scale, Setting

_FEW_CHECKS = ("capture.insert", "capture.update", "capture.rollback", "actor.local-setting", "actor.residue")
_SUITES = ("capture", "actor")
_DOUBLING = (1, 2, 4, 8)
_MOST_TOPOLOGIES, _FEW_TOPOLOGIES = 100, 8
BOUND_MERGE_S, BOUND_MERGE_MB = 2.5, 250.0


def measure_topologies(setting: Setting, scale: Scale) -> Iterator[Table]:
    """Yield the time of the same few checks on 1, 2, 4 and 8 topologies."""
    topologies = [topology.name for topology in setting.topologies(scale)]
    checks = scale.selection or tuple(f"--check={check}" for check in _FEW_CHECKS)
    rows = []
    first = 0.0
    for count in (count for count in _DOUBLING if count <= len(topologies)):
        measured = []
        for number in range(scale.rounds):
            setting.say(f"growth-topologies: {count}, round {number + 1} of {scale.rounds}")
            measured.append(setting.run(setting.trees[0], "verify", *topologies[:count], *checks))
        took = statistics.median(seconds for seconds, _ in measured)
        first = first or took
        run = measured[-1][1]
        ready_ms = max(evidence.ready_ms for evidence in run.record.topologies.values())
        rows.append(
            (str(count), f"{took:.2f} s", f"{took / first:.2f}", f"{took / count:.2f} s", f"{ready_ms / 1000:.2f} s")
        )
    yield Table(
        title="growth: topologies",
        columns=("Topologies", "Median", "Ratio to one", "Per topology", "Slowest start-up of the last round"),
        rows=tuple(rows),
        notes=(
            f"Median of {scale.rounds}: `verify` with {len(checks)} checks per topology; topologies in the order of their files.",
        ),
    )


def measure_checks(setting: Setting, scale: Scale) -> Iterator[Table]:
    """Yield the time of every other check of two suites, and of all checks of those suites."""
    topology = setting.topologies(scale)[0]
    checks = [check.id for check in catalogue().select(_SUITES, []) if topology.verifies(check.id)][
        : scale.rows or None
    ]
    rows = []
    for label, chosen in (("every other check", checks[::2]), ("all of them", checks)):
        setting.say(f"growth-checks: {label}")
        measured = [
            setting.run(setting.trees[0], "verify", topology.name, *(f"--check={check}" for check in chosen))
            for _ in range(scale.rounds)
        ]
        took = statistics.median(seconds for seconds, _ in measured)
        exercised = sum(bool(row.expectations) for row in measured[-1][1].results)
        rows.append((label, str(exercised), f"{took:.2f} s", took))
    half, whole = rows[0][3], rows[1][3]
    marginal_ms = (whole - half) / max(int(rows[1][1]) - int(rows[0][1]), 1) * 1000
    yield Table(
        title="growth: checks",
        columns=("Checks", "Exercised", "Median"),
        rows=tuple((label, count, shown) for label, count, shown, _ in rows),
        notes=(
            (
                f"Suites {' and '.join(_SUITES)} on {topology.name}; median of {scale.rounds}. Twice the checks take "
                f"{whole / half:.2f} times as long; one more check takes {marginal_ms:.0f} ms. Selecting every other check "
                "puts cheap and expensive checks into both halves."
            ),
        ),
    )


def measure_evidence(setting: Setting, scale: Scale) -> Iterator[Table]:
    """Yield the cost of merging and of rendering. The evidence is one real run, copied under other names."""
    names = [topology.name for topology in setting.topologies(scale)]
    setting.say(f"evidence: run {', '.join(names)} once, to copy its evidence")
    run = setting.run(setting.trees[0], "verify", *names, *scale.selection)[1]
    most = scale.rows or _MOST_TOPOLOGIES
    merged, rendered = [], []
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        copy_runs(run, folder / "runs", most)
        copy_topologies(run, folder / "matrix", most)
        sources = {most: "matrix"}
        if most > _FEW_TOPOLOGIES:
            copy_topologies(run, folder / "few", _FEW_TOPOLOGIES)
            sources = {_FEW_TOPOLOGIES: "few"} | sources
        for label, source in (("the same topologies", "runs"), ("a topology each", "matrix")):
            merged.append(_merged(setting, folder, source, f"{most} run folders, {label}"))
        for count, source in sources.items():
            rendered.append(_rendered(setting, folder, source, count, scale.rounds))
    rows_of_run = len(run.results)
    copied = f"Copied from a run of {', '.join(names)} with {rows_of_run} rows."
    yield Table(
        title="evidence: merging run folders",
        columns=("Evidence", "Rows read", "Once", "Bound", "Peak", "Peak bound"),
        rows=tuple(merged),
        notes=(
            copied,
            "Reading and merging in a separate process; the peak includes the interpreter and its modules.",
        ),
    )
    yield Table(
        title="evidence: rendering the report",
        columns=("Topologies", "Median", "Per topology", "Peak", "Written"),
        rows=tuple(rendered),
        notes=(copied, f"The whole command `report --from`, with reading and merging; median of {scale.rounds}."),
    )


def _merged(setting: Setting, folder: Path, source: str, label: str) -> tuple[str, ...]:
    from tests.bench.trees import run_child

    setting.say(f"evidence: merge {label}")
    tree = setting.trees[0]
    child = run_child([tree.python, "-c", _MERGE, str(folder / source)], folder=folder, environment=tree.environment())
    took, rows = child.stdout.split()
    return (
        *(label, f"{int(rows):,}", f"{float(took):.2f} s", verdict(float(took), BOUND_MERGE_S)),
        *(f"{child.peak_mb:.0f} MB", verdict(child.peak_mb, BOUND_MERGE_MB, "MB")),
    )


_MERGE = """
import sys, time
from pathlib import Path
from harness.report.merging import merge
from harness.store import read_runs
began = time.perf_counter()
runs, _ = read_runs([Path(sys.argv[1])])
evidence = merge(runs, ())
print(time.perf_counter() - began, sum(len(run.results) for run in runs))
"""


def _rendered(setting: Setting, folder: Path, source: str, count: int, rounds: int) -> tuple[str, ...]:
    out = folder / f"report-{source}"
    seconds, peaks = [], []
    for number in range(rounds):
        setting.say(f"evidence: render {count} topologies, round {number + 1} of {rounds}")
        began = time.perf_counter()
        child = setting.trees[0].harness(folder, "report", "--from", str(folder / source), "--reports", str(out))
        seconds.append(time.perf_counter() - began)
        peaks.append(child.peak_mb)
    took = statistics.median(seconds)
    written = sum(path.stat().st_size for path in out.iterdir() if path.is_file())
    return (
        *(str(count), f"{took:.2f} s", f"{took / count * 1000:.0f} ms"),
        *(f"{max(peaks):.0f} MB", f"{written / 1e6:.1f} MB"),
    )
