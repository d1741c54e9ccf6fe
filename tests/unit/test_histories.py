"""Plots of histories: what they show, and that they stay small whatever a history holds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from harness.model.history import Answered, Fault, History, Invoked, Opening, Operation, Sample
from harness.redaction import Redactor
from harness.report import curves, histories
from harness.report.curves import HEIGHT
from harness.report.evidence import Row
from harness.report.histories import StoredHistory, plot_of, stored_histories
from harness.store import RunStore, attempt_of, history_files, is_under_control, read_history
from harness.store.histories import history_name
from tests.unit.histories import everything, fault, operations, write_history
from tests.unit.made_up import planned, record, result

if TYPE_CHECKING:
    from harness.model.history import Outcome, Record

CHECK = "capture.insert"
STORED = StoredHistory(target="direct", check=CHECK, link="x.jsonl")
OPENING = Opening(topology="direct", check=CHECK, judge="made-up", started_at="2026-01-01T00:00:00.000Z")
#: bytes of the page that one history may take
MOST_BYTES = 8192


def size(plot: histories.Plot) -> int:
    """Return about how much of the page a plot takes: its texts and paths, and the elements around them."""
    areas = (plot.faults, plot.recoveries, plot.gaps)
    drawn = sum(len(curve.legend) + len(curve.path) + 60 for panel in plot.panels for curve in panel.curves)
    return len(" ".join(plot.said)) + drawn + 2 * sum(map(len, areas)) + 600


def drawn(folder: Path, records: list[Record]) -> histories.Plot:
    path = write_history(folder, "direct", CHECK, records, everything(1))
    return plot_of(STORED, read_history(path), 12)


def test_rate_latency_faults_and_gaps(tmp_path: Path) -> None:
    """Ten operations in a second, none for a second, and ten more."""
    later = [
        replace(record, seconds=record.seconds + 2.0, client=9)
        for record in operations(10, clients=1, every_s=0.1)
        if isinstance(record, (Invoked, Answered))
    ]
    outcomes: dict[int, Outcome] = {9: "fail"}
    plot = drawn(
        tmp_path, [*operations(10, clients=1, every_s=0.1, outcomes=outcomes), *later, *fault(1, "cut", 1, 2, 2.2)]
    )
    assert plot.said == (
        "2 clients: 19 acknowledged, 1 failed, 0 unknown",
        "1 fault: cut; clients succeeded again 0.01 s later in the median, 0.01 s at the longest",
        "nothing acknowledged from 0.81 to 2 s",
    )
    rate, latency = plot.panels
    assert (rate.top, rate.bottom, latency.top, latency.bottom) == ("20", "0", "100", "1")
    assert [curve.legend for curve in rate.curves] == ["acknowledged: 0 to 12", "failed: 0 to 4.1"]
    assert [curve.legend for curve in latency.curves] == ["p50: 10 to 10", "p95: 10 to 10"]
    # one line before the fault, and one after it
    assert latency.curves[0].path.count("M") == 2
    assert plot.faults == "M3.62 0h4.12v99H3.62z"
    assert plot.recoveries == "M7.75 0h0.82v99H7.75z"
    assert plot.gaps == "M2.84 96h4.95v3H2.84z"
    assert plot.end == "2.9 s"


def test_the_time_before_the_first_acknowledgement_is_a_gap(tmp_path: Path) -> None:
    """Two operations fail before it. A history without any acknowledgement has no gap: its words say so."""
    outcomes: dict[int, Outcome] = {0: "fail", 1: "fail"}
    plot = drawn(tmp_path, operations(4, clients=1, every_s=0.6, outcomes=outcomes))
    assert plot.said[1] == "nothing acknowledged from 0 to 1.2 s, 1.2 to 1.8 s"
    failed: dict[int, Outcome] = dict.fromkeys(range(4), "fail")
    assert drawn(tmp_path / "failed", operations(4, clients=1, every_s=0.6, outcomes=failed)).gaps == ""


def test_the_samples_of_a_load(tmp_path: Path) -> None:
    """Turns with the trail and without it: a line has a gap where the other load runs, and no time is lost."""
    with_trail = {"transactions per second": 90.0, "errors per second": 0.0, "latency ms p50": 5.0}
    plain = {"plain transactions per second": 110.0, "plain latency ms p50": 2.0, "schedule lag ms p95": 0.5}
    records: list[Record] = [
        Sample(seconds=float(second), values=with_trail if second % 4 < 2 else plain) for second in range(1, 11)
    ]
    plot = drawn(tmp_path, records)
    assert plot.said == ("10 samples; recorded one by one: 0 failed, 0 unknown",)
    assert plot.gaps == ""
    rate, latency = plot.panels
    assert [(curve.legend, curve.kind) for curve in rate.curves] == [
        ("transactions: 90 to 90", "a"),
        ("plain transactions: 110 to 110", "c"),
    ]
    assert [curve.legend for curve in latency.curves] == [
        "latency p50: 5 to 5",
        "plain latency p50: 2 to 2",
        "schedule lag p95: 0.5 to 0.5",
    ]
    plot = drawn(tmp_path / "stalled", [*records, Sample(seconds=30.0, values=with_trail)])
    assert "no sample from 10 to 30 s" in plot.said


def test_the_line_of_a_load_is_not_broken_between_two_samples() -> None:
    """A sample a second, in sixty intervals of a third of a second: also where one of them is late."""
    seconds = [second + 0.3 * (second % 3) for second in range(1, 21) if second != 10]
    samples = tuple(Sample(seconds=at, values={"transactions per second": 90.0 + at}) for at in seconds)
    (rate,) = plot_of(STORED, History(opening=OPENING, samples=samples)).panels
    assert rate.curves[0].path.count("M") == 1
    apart = tuple(sample for sample in samples if not 5 < sample.seconds < 12)
    (rate,) = plot_of(STORED, History(opening=OPENING, samples=apart)).panels
    assert rate.curves[0].path.count("M") == 2


def test_a_history_of_a_killed_run_is_drawn(tmp_path: Path) -> None:
    path = write_history(
        tmp_path, "direct", CHECK, [*operations(40), *fault(1, "cut", 1, 3, healed=False)], complete=False
    )
    path.write_bytes(path.read_bytes()[:-5])
    plot = plot_of(STORED, read_history(path), 12)
    assert "1 fault: cut" in plot.said
    assert "its last line is incomplete: the harness was killed" in plot.said
    assert plot.faults.startswith("M5.65 0h5.85")  # until the end of the history


def test_without_an_operation_nothing_is_drawn() -> None:
    assert plot_of(STORED, History(opening=OPENING)).said[0].startswith("not drawn: the history has no operation")


@pytest.mark.parametrize("damage", ["missing", "junk", "large"])
def test_a_file_that_cannot_be_read_is_said(tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_history(tmp_path, "direct", CHECK, operations(3))
    if damage == "missing":
        path.unlink()
    elif damage == "junk":
        path.write_bytes(b"{\n")
    else:
        monkeypatch.setattr(histories, "LARGEST_BYTES", 10)
    [said] = histories._plot(STORED, path, 10).said
    assert said.startswith("not drawn: ")


def test_the_newest_histories_of_a_row_count_and_none_under_a_control(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "r"
    for number in range(1, 12):
        write_history(run, "direct", CHECK, [], number=number)
    write_history(run, "direct", CHECK, [], control="a-control")
    write_history(run, "direct", f"{CHECK}-many", [])
    write_history(run, "session", CHECK, [])
    rows = [
        Row(planned=planned("direct", CHECK), result=result("direct", CHECK), run_id=run_id) for run_id in ("r", "")
    ]
    found = stored_histories(rows, {"r": run}, tmp_path)
    assert [stored.link for stored in found] == [
        f"runs/r/histories/direct/{CHECK}.10.jsonl",
        f"runs/r/histories/direct/{CHECK}.11.jsonl",
    ]


def test_a_row_has_the_history_of_the_attempt_that_it_shows(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "r"
    for attempt in (1, 2, 12):
        write_history(run, "direct", CHECK, [], attempt=attempt)
    write_history(run, "direct", CHECK, [], attempt=2, number=2)
    shown = Row(planned=planned("direct", CHECK), result=replace(result("direct", CHECK), attempt=2), run_id="r")
    found = stored_histories([shown], {"r": run}, tmp_path)
    assert [stored.link for stored in found] == [
        f"runs/r/histories/direct/{CHECK}.attempt-2.jsonl",
        f"runs/r/histories/direct/{CHECK}.attempt-2.2.jsonl",
    ]
    assert [attempt_of(path) for path in history_files(run)] == [(CHECK, 1), (CHECK, 2), (CHECK, 2), (CHECK, 12)]


def test_a_journal_is_named_after_its_attempt(tmp_path: Path) -> None:
    store = RunStore(tmp_path, record("20260101T000000Z-aaaaaaa1"), Redactor())
    paths = []
    for attempt, control in ((1, ""), (2, ""), (2, ""), (1, "a-control")):
        journal = store.open_journal("direct", CHECK, "made-up", control=control, attempt=attempt)
        journal.close()
        assert read_history(journal.path).opening.attempt == attempt
        paths.append(journal.path.name)
    store.close()
    names = (CHECK, f"{CHECK}.attempt-2", f"{CHECK}.attempt-2.2", f"{CHECK}.under-a-control")
    assert paths == [f"{name}.jsonl" for name in names]


@given(
    check=st.from_regex(r"[a-z]+\.[a-z]+(-[a-z0-9]+)*", fullmatch=True),
    control=st.just("") | st.from_regex(r"[a-z]+(-[a-z0-9]+)*", fullmatch=True),
    attempt=st.integers(1, 10_000),
    number=st.just("") | st.integers(2, 10_000).map(".{}".format),
)
def test_the_name_of_a_history_has_its_check_and_attempt(check: str, control: str, attempt: int, number: str) -> None:
    path = Path(f"{history_name(check, control=control, attempt=attempt)}{number}.jsonl")
    assert attempt_of(path) == (history_name(check, control=control), attempt)
    assert is_under_control(path) is bool(control)


seconds = st.floats(0, 1e6)
an_operation = st.builds(
    Operation,
    client=st.integers(1, 9),
    seq=st.integers(1, 10**6),
    operation=st.just("insert"),
    key=st.just("k"),
    value=st.just("v"),
    actor=st.just("ada"),
    invoked_s=seconds,
    outcome=st.sampled_from(["ok", "fail", "unknown"]),
    answered_s=st.none() | seconds,
)
a_fault = st.builds(
    Fault,
    number=st.integers(1, 99),
    name=st.sampled_from(["cut", "killed"]),
    inject_s=seconds,
    healed_s=st.none() | seconds,
    recovered_s=st.none() | seconds,
)
a_sample = st.builds(
    Sample,
    seconds=seconds,
    values=st.dictionaries(
        st.sampled_from([name for name, *_ in (*curves._RATES, *curves._LATENCIES)]), st.floats(0, 1e9)
    ),
)


@settings(deadline=None)
@given(
    history=st.builds(
        History,
        opening=st.just(OPENING),
        operations=st.lists(an_operation, max_size=80).map(tuple),
        faults=st.lists(a_fault, max_size=80).map(tuple),
        samples=st.lists(a_sample, max_size=30).map(tuple),
    ),
    points=st.integers(histories.LEAST_POINTS, histories.POINTS),
)
def test_every_plot_is_small_and_inside_its_drawing(history: History, points: int) -> None:
    plot = plot_of(STORED, history, points)
    assert size(plot) < MOST_BYTES
    for curve in (curve for panel in plot.panels for curve in panel.curves):
        assert re.fullmatch(r"(M\d+ \d+(V\d+|h\.1|( \d+ \d+)*))*", curve.path)
        for x, y in re.findall(r"(\d+) (\d+)", curve.path):
            assert 0 <= int(x) < points
            assert 0 <= int(y) <= HEIGHT
