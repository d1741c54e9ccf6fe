"""The plots of histories: rate and latency over time, drawn as small SVG paths, with the faults and the gaps.

The page needs no script for them. Each history takes a few kilobytes at most, however long it is: operations are
counted in at most :data:`POINTS` intervals, and in fewer when a report has many histories.
"""

from __future__ import annotations

import os
import re
from itertools import pairwise
from math import ceil, floor, log10
from statistics import median
from typing import TYPE_CHECKING

from msgspec import Struct

from harness.errors import StoreError
from harness.printable import printable
from harness.store import history_files, read_history

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from harness.model.history import History, Operation, Sample
    from harness.report.evidence import Row
    from harness.report.tables import Report

#: intervals of one plot, and of all plots of a report together
POINTS, LEAST_POINTS, ALL_POINTS = 60, 12, 700
#: a shorter interval holds so few operations that their rate is noise, seconds
_SHORTEST_INTERVAL_S = 0.1
#: a larger history is not drawn: reading it takes longer than a reader waits for a report
LARGEST_BYTES = 128 << 20
#: the newest histories of one row that are drawn
MOST_OF_A_ROW = 2
#: the height of a drawing in its own units; its width is the number of intervals
HEIGHT = 99
#: seconds without an acknowledgement that are marked; without a sample, so many times the usual time between two
_GAP_S, _PAUSE = 0.5, 3
#: spans and gaps that are named one by one
_NAMED = 3
#: the least width of an area, of which a drawing has so many of one kind, and the height of the mark of a gap
_LEAST_SPAN = 0.1
_MOST_AREAS = 30
_MARK = 3
_NO_ROOM = 1e-9
#: a shorter history has no rate, and a smaller value is 0
_SHORTEST_S = _LEAST_VALUE = 0.001


class StoredHistory(Struct, frozen=True, kw_only=True):
    """The history of a row."""

    target: str
    check: str
    #: the file, relative to the folder of the report
    link: str


class Curve(Struct, frozen=True, kw_only=True):
    """One measured quantity, as the path of an SVG."""

    #: what it is, and its lowest and highest value, such as `acknowledged: 12 to 240`
    legend: str
    path: str
    #: how it is drawn: `a` to `d` for lines, `bad` and `open` for bars
    kind: str


class Panel(Struct, frozen=True, kw_only=True):
    """One drawing."""

    #: such as `operations per second`
    title: str
    #: the values at its upper and at its lower edge
    top: str
    bottom: str
    curves: tuple[Curve, ...]


class Plot(Struct, frozen=True, kw_only=True):
    """One history as the page shows it."""

    topology: str
    check: str
    #: in words: the operations, the faults and the gaps
    said: tuple[str, ...]
    #: at the right edge
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

    :param folders: the folder of each run, by its id.
    :param reports: the folder of the report.
    """
    files: dict[str, dict[tuple[str, str], list[Path]]] = {}
    found = []
    for row in rows:
        if row.run_id not in folders:
            continue
        if row.run_id not in files:
            files[row.run_id] = _files_of(folders[row.run_id])
        for path in files[row.run_id].get((row.planned.target, row.planned.check), [])[-MOST_OF_A_ROW:]:
            link = os.path.relpath(path, reports)
            found.append(StoredHistory(target=row.planned.target, check=row.planned.check, link=link))
    return tuple(found)


def _files_of(run: Path) -> dict[tuple[str, str], list[Path]]:
    """Return the histories of a run that are under no control, by topology and check."""
    found: dict[tuple[str, str], list[Path]] = {}
    for path in history_files(run):
        name = re.sub(r"(\.\d+)?\.jsonl$", "", path.name)
        if ".under-" not in name:
            found.setdefault((path.parent.name, name), []).append(path)
    return found


def plots(report: Report, folder: Path) -> dict[str, Plots]:
    """Return the plots of a report by topology.

    :param folder: that of the report.
    """
    points = max(LEAST_POINTS, min(POINTS, ALL_POINTS // max(len(report.histories), 1)))
    found: dict[str, list[Plot]] = {}
    for stored in report.histories:
        found.setdefault(stored.target, []).append(_plot(stored, folder / stored.link, points))
    folders: dict[str, dict[str, None]] = {}
    for stored in report.histories:
        folders.setdefault(stored.target, {}).setdefault(os.path.dirname(stored.link))  # noqa: PTH120 -- a link
    return {name: Plots(folders=tuple(folders[name]), drawn=tuple(drawn)) for name, drawn in found.items()}


def _plot(stored: StoredHistory, path: Path, points: int) -> Plot:
    empty = Plot(topology=stored.target, check=stored.check, said=())
    try:
        if (size := path.stat().st_size) > LARGEST_BYTES:
            said = f"not drawn: the history has {size >> 20} MiB, and at most {LARGEST_BYTES >> 20} MiB are read"
            return _with(empty, said)
        history = read_history(path)
    except OSError as error:
        return _with(empty, f"not drawn: the history cannot be read: {error.strerror}")
    except StoreError as error:
        return _with(empty, f"not drawn: {error.what}")
    return plot_of(stored, history, points)


def _with(plot: Plot, sentence: str) -> Plot:
    return Plot(topology=plot.topology, check=plot.check, said=(sentence,))


def plot_of(stored: StoredHistory, history: History, points: int = POINTS) -> Plot:
    """Draw a history."""
    end_s = _end_s(history)
    if end_s < _SHORTEST_S:
        said = "not drawn: the history has no operation and no sample, or a single one"
        return Plot(topology=stored.target, check=stored.check, said=(said,))
    points = max(LEAST_POINTS, min(points, int(end_s / _SHORTEST_INTERVAL_S)))
    grid = _Grid(end_s, points)
    panels = _of_samples(history.samples, grid) if history.samples else _of_operations(history.operations, grid)
    gaps = _gaps(history, grid)
    return Plot(
        topology=stored.target,
        check=stored.check,
        said=tuple(map(printable, _said(history, gaps))),
        end=f"{_number(end_s)} s",
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


class _Grid:
    """The time axis: intervals of equal length."""

    def __init__(self, end_s: float, points: int) -> None:
        self.end_s = end_s
        self.points = points
        self.width_s = end_s / points

    def sorted_in(self, times: Iterable[tuple[float, float]]) -> list[list[float]]:
        """Return the values of each interval, given pairs of a time and a value."""
        found: list[list[float]] = [[] for _ in range(self.points)]
        for time, value in times:
            found[max(0, min(self.points - 1, int(time / self.width_s)))].append(value)
        return found

    def areas(self, spans: Iterable[tuple[float, float]], top: int = 0) -> str:
        """Return the path that covers spans of time, from `top` down. Those close to each other become one if many."""
        drawn = sorted((begin / self.width_s - 0.5, end / self.width_s - 0.5) for begin, end in spans)
        apart = 0.02
        while len(joined := _joined(drawn, apart)) > _MOST_AREAS:
            apart *= 2
        high = HEIGHT - top
        return "".join(f"M{x:.2f} {top}h{max(_LEAST_SPAN, end - x):.2f}v{high}H{x:.2f}z" for x, end in joined)


def _joined(spans: Sequence[tuple[float, float]], apart: float) -> list[tuple[float, float]]:
    found: list[tuple[float, float]] = []
    for begin, end in spans:
        if found and begin - found[-1][1] <= apart:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((begin, end))
    return found


# --- panels ----------------------------------------------------------------------------------------------

#: name, a value for each interval (None where nothing was measured), and how it is drawn
_Measured = tuple[str, "Sequence[float | None]", str]


def _of_operations(operations: Sequence[Operation], grid: _Grid) -> tuple[Panel, ...]:
    rates: list[_Measured] = []
    for outcome, name, kind in (("ok", "acknowledged", "a"), ("fail", "failed", "bad"), ("unknown", "unknown", "open")):
        times = [
            (operation.invoked_s if operation.answered_s is None else operation.answered_s, 1.0)
            for operation in operations
            if operation.outcome == outcome
        ]
        if times or outcome == "ok":
            rates.append((name, [len(values) / grid.width_s for values in grid.sorted_in(times)], kind))
    latencies = grid.sorted_in(
        (operation.answered_s, (operation.answered_s - operation.invoked_s) * 1000)
        for operation in operations
        if operation.outcome == "ok" and operation.answered_s is not None
    )
    spread = [(f"p{share}", [_percentile(values, share) for values in latencies], kind) for share, kind in _SHARES]
    return tuple(_panels(rates, spread, "operations per second", "milliseconds until acknowledged"))


_SHARES = ((50, "a"), (95, "b"))
#: the quantities of samples: the name in the history, how it is drawn, and how several in one interval become one
_RATES: tuple[tuple[str, str, Callable[[list[float]], float]], ...] = (
    ("transactions per second", "a", lambda values: sum(values) / len(values)),
    ("plain transactions per second", "c", lambda values: sum(values) / len(values)),
    ("errors per second", "open", max),
)
_LATENCIES: tuple[tuple[str, str, Callable[[list[float]], float]], ...] = (
    ("latency ms p50", "a", median),
    ("latency ms p95", "b", max),
    ("plain latency ms p50", "c", median),
    ("schedule lag ms p95", "d", max),
)


def _of_samples(samples: Sequence[Sample], grid: _Grid) -> tuple[Panel, ...]:
    def measured(
        quantities: Iterable[tuple[str, str, Callable[[list[float]], float]]], ending: str
    ) -> Iterator[_Measured]:
        for name, kind, joined in quantities:
            found = grid.sorted_in((one.seconds, one.values[name]) for one in samples if name in one.values)
            values = [joined(values) if values else None for values in found]
            if kind != "open" and any(value is not None for value in values):
                yield name.replace(ending, ""), _bridged(values, bridge), kind
            elif any(values):  # bars
                yield "errors, also the planned ones", values, kind

    # an interval between two samples has none: the line goes on
    bridge = ceil(_PAUSE * _usual_s(samples) / grid.width_s)
    rates, latencies = list(measured(_RATES, " per second")), list(measured(_LATENCIES, " ms"))
    return tuple(_panels(rates, latencies, "per second", "milliseconds"))


def _usual_s(samples: Sequence[Sample]) -> float:
    """Return the usual time between two samples."""
    times = sorted(sample.seconds for sample in samples)
    return median(end - begin for begin, end in pairwise(times)) if len(times) > 1 else 0.0


def _bridged(values: Sequence[float | None], most: int) -> list[float | None]:
    """Fill at most so many intervals between two measured ones with what is between their values."""
    found = list(values)
    measured = [place for place, value in enumerate(found) if value is not None]
    for begin, end in pairwise(measured):
        first, last = found[begin], found[end]
        if first is not None and last is not None and end - begin - 1 <= most:
            for place in range(begin + 1, end):
                found[place] = first + (last - first) * (place - begin) / (end - begin)
    return found


def _panels(
    rates: Sequence[_Measured],
    latencies: Sequence[_Measured],
    of_rates: str,
    of_latencies: str,
) -> Iterator[Panel]:
    if (most := max(_values(rates), default=0.0)) >= _LEAST_VALUE:
        most = _round_up(most)
        yield Panel(
            title=of_rates,
            top=_number(most),
            bottom="0",
            curves=tuple(_curve(name, values, kind, lambda value: value / most) for name, values, kind in rates),
        )
    if measured := [value for value in _values(latencies) if value >= _LEAST_VALUE]:
        low, high = floor(log10(min(measured))), max(ceil(log10(max(measured))), floor(log10(min(measured))) + 1)

        def place(value: float) -> float:
            return (log10(max(value, 10.0**low)) - low) / (high - low)

        yield Panel(
            title=f"{of_latencies}, logarithmic",
            top=_number(10.0**high),
            bottom=_number(10.0**low),
            curves=tuple(_curve(name, values, kind, place) for name, values, kind in latencies),
        )


def _values(series: Iterable[_Measured]) -> list[float]:
    return [value for _, values, _ in series for value in values if value is not None]


def _curve(name: str, values: Sequence[float | None], kind: str, place: Callable[[float], float]) -> Curve:
    """Draw one quantity: a line with gaps, or a bar for each interval in which it is not 0."""
    measured = [value for value in values if value is not None]
    legend = f"{name}: {_number(min(measured))} to {_number(max(measured))}" if measured else f"{name}: none"
    path, before = "", None
    for x, value in enumerate(values):
        y = None if value is None else max(0, min(HEIGHT, round(HEIGHT - place(value) * HEIGHT)))
        if kind in {"bad", "open"}:
            path += f"M{x} {HEIGHT}V{y}" if value else ""
        elif y is not None and before is None:
            alone = x + 1 == len(values) or values[x + 1] is None
            path += f"M{x} {y}{'h.1' if alone else ''}"
        elif y is not None:
            path += f" {x} {y}"
        before = y
    return Curve(legend=legend, path=path, kind=kind)


def _percentile(values: list[float], share: int) -> float | None:
    if not values:
        return None
    return sorted(values)[min(len(values) - 1, ceil(len(values) * share / 100) - 1)]


def _round_up(value: float) -> float:
    """Return the next of 1, 2, 5 times a power of ten."""
    power = 10.0 ** floor(log10(value))
    return float(next(size * power for size in (1, 2, 5, 10) if size * power >= value - _NO_ROOM))


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{float(f'{value:.2g}'):g}"  # noqa: PLR2004 -- three digits


# --- gaps and words --------------------------------------------------------------------------------------


def _gaps(history: History, grid: _Grid) -> list[tuple[float, float]]:
    """Return when nothing was acknowledged, or when no sample was taken, for longer than usual."""
    if history.samples:
        times = [0.0, *sorted(sample.seconds for sample in history.samples)]
        usual = _PAUSE * _usual_s(history.samples)
    else:
        acknowledged = [
            operation.answered_s
            for operation in history.operations
            if operation.outcome == "ok" and operation.answered_s is not None
        ]
        times, usual = sorted(acknowledged), 0.0
        if times:
            times.append(max(grid.end_s, times[-1]))
    least = max(_GAP_S, usual)
    return [(begin, end) for begin, end in pairwise(times) if end - begin > least]


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
        after = [
            fault.recovered_s - fault.healed_s
            for fault in history.faults
            if fault.healed_s is not None and fault.recovered_s is not None
        ]
        number = f"{len(history.faults)} fault{'s' if len(history.faults) > 1 else ''}: {names}"
        times = f"; all clients succeeded again {_number(median(after))} s later" if after else ""
        longest = f" in the median, {_number(max(after))} s at the longest" if len(after) > 1 else ""
        yield f"{number}{times}{longest}"
    if gaps:
        what = "no sample" if history.samples else "nothing acknowledged"
        named = ", ".join(f"{_number(begin)} to {_number(end)} s" for begin, end in gaps[:_NAMED])
        yield f"{what} from {named}{f', and {len(gaps) - _NAMED} more times' if len(gaps) > _NAMED else ''}"
    if history.torn:
        yield "its last line is incomplete: the harness was killed"
