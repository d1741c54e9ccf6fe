"""The plots of histories: rate and latency over time, drawn as small SVG paths, with the faults and the gaps.

The page needs no script for them. Each history takes a few kilobytes at most, however long it is: operations are
counted in at most :data:`POINTS` intervals, and in fewer when a report has many histories.
"""

from __future__ import annotations

import os
from itertools import pairwise
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.checks.judges.recovery import recovery
from harness.errors import StoreError
from harness.printable import printable
from harness.report.curves import HEIGHT, PAUSE, Grid, Panel, brief, of_operations, of_samples, usual_s
from harness.store import attempt_of, history_files, is_under_control, read_history

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from harness.model.history import History
    from harness.report.evidence import Row
    from harness.report.tables import Report

#: intervals of one plot, and of all plots of a report together
POINTS, LEAST_POINTS, ALL_POINTS = 60, 12, 600
#: a shorter interval holds so few operations that their rate is noise, seconds
_SHORTEST_INTERVAL_S = 0.1
#: a larger history is not drawn: reading it takes longer than a reader waits for a report
LARGEST_BYTES = 128 << 20
#: the newest histories of one attempt that are drawn
MOST_OF_A_ROW = 2
#: seconds without an acknowledgement that are marked
_GAP_S = 0.5
#: spans and gaps that are named one by one
_NAMED = 3
#: the height of the mark of a gap
_MARK = 3
#: a shorter history has no rate
_SHORTEST_S = 0.001


class StoredHistory(Struct, frozen=True, kw_only=True):
    """The history of a row."""

    target: str
    check: str
    #: the file, relative to the folder of the report
    link: str


class Plot(Struct, frozen=True, kw_only=True):
    """One history as the page shows it."""

    topology: str
    check: str
    #: in words: the operations, the faults and the gaps
    said: tuple[str, ...]
    #: the time in the middle, and at the right edge
    middle: str = ""
    end: str = ""
    #: the intervals of the drawings: number 3 is at x = 3, from 2.5 to 3.5
    points: int = 0
    panels: tuple[Panel, ...] = ()
    #: the areas of the faults, of the recovery after each of them, and of the gaps, as paths
    faults: str = ""
    recoveries: str = ""
    gaps: str = ""


class Plots(Struct, frozen=True, kw_only=True):
    """The plots of one topology."""

    #: where the files are, relative to the folder of the report
    folders: tuple[str, ...]
    drawn: tuple[Plot, ...]


def stored_histories(rows: Iterable[Row], folders: Mapping[str, Path], reports: Path) -> tuple[StoredHistory, ...]:
    """Return the histories of the rows that a report shows, without those under a control.

    A row that was tried several times has the history of the attempt that it shows.

    :param folders: the folder of each run, by its id.
    :param reports: the folder of the report.
    """
    files: dict[str, dict[tuple[str, str, int], list[Path]]] = {}
    found = []
    for row in rows:
        if row.run_id not in folders:
            continue
        if row.run_id not in files:
            files[row.run_id] = _files_of(folders[row.run_id])
        of_row = (row.planned.target, row.planned.check, row.result.attempt)
        for path in files[row.run_id].get(of_row, [])[-MOST_OF_A_ROW:]:
            link = os.path.relpath(path, reports)
            found.append(StoredHistory(target=row.planned.target, check=row.planned.check, link=link))
    return tuple(found)


def _files_of(run: Path) -> dict[tuple[str, str, int], list[Path]]:
    """Return the histories of a run that are under no control, by topology, check and attempt."""
    found: dict[tuple[str, str, int], list[Path]] = {}
    for path in history_files(run):
        if not is_under_control(path):
            check, attempt = attempt_of(path)
            found.setdefault((path.parent.name, check, attempt), []).append(path)
    return found


def plots(report: Report, folder: Path) -> dict[str, Plots]:
    """Return the plots of a report by topology: of faults and loads, not of commands and uploads.

    :param folder: that of the report.
    """
    of_jobs = {row.planned.check for row in report.rows if row.planned.job or row.planned.ingest}
    histories = [stored for stored in report.histories if stored.check not in of_jobs]
    points = max(LEAST_POINTS, min(POINTS, ALL_POINTS // max(len(histories), 1)))
    found: dict[str, list[Plot]] = {}
    for stored in histories:
        found.setdefault(stored.target, []).append(_plot(stored, folder / stored.link, points))
    folders: dict[str, dict[str, None]] = {}
    for stored in histories:
        folders.setdefault(stored.target, {}).setdefault(os.path.dirname(stored.link))  # noqa: PTH120 -- a link
    return {name: Plots(folders=tuple(folders[name]), drawn=tuple(drawn)) for name, drawn in found.items()}


def _plot(stored: StoredHistory, path: Path, points: int) -> Plot:
    try:
        if (size := path.stat().st_size) > LARGEST_BYTES:
            reason = f"the history has {size >> 20} MiB, and at most {LARGEST_BYTES >> 20} MiB are read"
            return _not_drawn(stored, reason)
        history = read_history(path)
    except OSError as error:
        return _not_drawn(stored, f"the history cannot be read: {error.strerror}")
    except StoreError as error:
        return _not_drawn(stored, error.what)
    return plot_of(stored, history, points)


def _not_drawn(stored: StoredHistory, reason: str) -> Plot:
    return Plot(topology=stored.target, check=stored.check, said=(f"not drawn: {reason}",))


def plot_of(stored: StoredHistory, history: History, points: int = POINTS) -> Plot:
    """Draw a history."""
    end_s = _end_s(history)
    if end_s < _SHORTEST_S:
        return _not_drawn(stored, "the history has no operation and no sample, or a single one")
    points = max(LEAST_POINTS, min(points, int(end_s / _SHORTEST_INTERVAL_S)))
    grid = Grid(end_s, points)
    panels = of_samples(history.samples, grid) if history.samples else of_operations(history.operations, grid)
    gaps = _gaps(history, grid)
    return Plot(
        topology=stored.target,
        check=stored.check,
        said=tuple(map(printable, _said(history, gaps))),
        middle=f"{brief(end_s / 2)} s",
        end=f"{brief(end_s)} s",
        points=points,
        panels=panels,
        faults=grid.areas(
            (fault.inject_s, end_s if fault.healed_s is None else fault.healed_s) for fault in history.faults
        ),
        recoveries=grid.areas(
            (fault.healed_s, fault.recovered_s)
            for fault in history.faults
            if fault.healed_s is not None and fault.recovered_s is not None
        ),
        gaps=grid.areas(gaps, top=HEIGHT - _MARK),
    )


def _end_s(history: History) -> float:
    times = [0.0]
    times += [operation.answered_s or operation.invoked_s for operation in history.operations]
    times += [sample.seconds for sample in history.samples]
    times += [
        time
        for fault in history.faults
        for time in (fault.inject_s, fault.injected_s, fault.healed_s, fault.recovered_s)
        if time is not None
    ]
    return max(times)


# --- gaps and words --------------------------------------------------------------------------------------


def _gaps(history: History, grid: Grid) -> list[tuple[float, float]]:
    """Return when nothing was acknowledged, or when no sample was taken, for longer than usual."""
    if history.samples:
        times = sorted(sample.seconds for sample in history.samples)
        least = max(_GAP_S, PAUSE * usual_s(history.samples))
    else:
        times = sorted(
            operation.answered_s
            for operation in history.operations
            if operation.outcome == "ok" and operation.answered_s is not None
        )
        times += [grid.end_s] if times else []
        least = _GAP_S
    return [(begin, end) for begin, end in pairwise((0.0, *times)) if end - begin > least]


def _said(history: History, gaps: Sequence[tuple[float, float]]) -> Iterator[str]:
    counts = dict.fromkeys(("ok", "fail", "unknown"), 0)
    for operation in history.operations:
        counts[operation.outcome] += 1
    if history.samples:
        others = [f"{counts[outcome]} {word}" for outcome, word in (("fail", "failed"), ("unknown", "unknown"))]
        yield f"{len(history.samples)} samples; recorded one by one: {', '.join(others)}"
    elif history.operations:
        clients = len({operation.client for operation in history.operations})
        yield f"{clients} clients: {counts['ok']} acknowledged, {counts['fail']} failed, {counts['unknown']} unknown"
    if history.faults:
        names = ", ".join(dict.fromkeys(fault.name for fault in history.faults))
        again = recovery(history)
        number = f"{len(history.faults)} fault{'s' if len(history.faults) > 1 else ''}: {names}"
        times = (
            f"; clients succeeded again {again.median_s:.2f} s later in the median, {again.last_s:.2f} s at the longest"
            if again
            else ""
        )
        yield f"{number}{times}"
    if gaps:
        what = "no sample" if history.samples else "nothing acknowledged"
        named = ", ".join(f"{brief(begin)} to {brief(end)} s" for begin, end in gaps[:_NAMED])
        yield f"{what} from {named}{f', and {len(gaps) - _NAMED} more times' if len(gaps) > _NAMED else ''}"
    if history.torn:
        yield "its last line is incomplete: the harness was killed"
