"""The curves of a history: counts and measures by interval, as small SVG paths."""

from __future__ import annotations

from itertools import pairwise
from math import ceil, floor, log10
from statistics import median
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from harness.model.history import Operation, Sample

#: the height of a drawing in its own units; its width is the number of intervals
HEIGHT = 99
#: two samples belong to one line if the time between them is at most so many times the usual one
PAUSE = 3
#: the least width of an area, and how many of one kind a drawing has
_LEAST_SPAN = 0.1
_MOST_AREAS = 30
#: a smaller value is 0
_LEAST_VALUE = 0.001
_NO_ROOM = 1e-9


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


class Grid:
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


def of_operations(operations: Sequence[Operation], grid: Grid) -> tuple[Panel, ...]:
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


def of_samples(samples: Sequence[Sample], grid: Grid) -> tuple[Panel, ...]:
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
    bridge = ceil(PAUSE * usual_s(samples) / grid.width_s)
    rates, latencies = list(measured(_RATES, " per second")), list(measured(_LATENCIES, " ms"))
    return tuple(_panels(rates, latencies, "per second", "milliseconds"))


def usual_s(samples: Sequence[Sample]) -> float:
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
            top=brief(most),
            bottom="0",
            curves=tuple(_curve(name, values, kind, lambda value: value / most) for name, values, kind in rates),
        )
    if measured := [value for value in _values(latencies) if value >= _LEAST_VALUE]:
        low, high = floor(log10(min(measured))), max(ceil(log10(max(measured))), floor(log10(min(measured))) + 1)

        def place(value: float) -> float:
            return (log10(max(value, 10.0**low)) - low) / (high - low)

        yield Panel(
            title=f"{of_latencies}, logarithmic",
            top=brief(10.0**high),
            bottom=brief(10.0**low),
            curves=tuple(_curve(name, values, kind, place) for name, values, kind in latencies),
        )


def _values(series: Iterable[_Measured]) -> list[float]:
    return [value for _, values, _ in series for value in values if value is not None]


def _curve(name: str, values: Sequence[float | None], kind: str, place: Callable[[float], float]) -> Curve:
    """Draw one quantity: a line with gaps, or a bar for each interval in which it is not 0."""
    measured = [value for value in values if value is not None]
    legend = f"{name}: {brief(min(measured))} to {brief(max(measured))}" if measured else f"{name}: none"
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


def brief(value: float) -> str:
    """Return a number with the digits that a reader needs."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{float(f'{value:.2g}'):g}"  # noqa: PLR2004 -- three digits
