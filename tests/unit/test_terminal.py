"""Progress and prose: a live display on a terminal, few lines in a log, and no line wider than the screen."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import re
import shlex
import struct
import subprocess
import sys
import termios
from itertools import pairwise
from threading import Thread
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from rich.cells import cell_len

from harness import places
from harness.cli import terminal as terminal_module
from harness.cli.console import live_lines
from harness.cli.earlier_runs import earlier_ends
from harness.cli.estimate import about, clock, left_s
from harness.cli.progress import ProgressCounts, TopologyProgress, shown_first
from harness.cli.terminal import Terminal
from harness.cli.wrapping import REPRODUCE, shortened, wrapped
from harness.events import (
    CheckFinished,
    CheckProgress,
    CheckStarted,
    Event,
    ImageProgress,
    ImageReady,
    ImageStarted,
    LabReady,
    LabStarting,
    RunEnded,
    RunStarted,
    making_image,
)
from harness.model import KnownIssue, Status
from harness.waiting import NotYet, poll
from tests.unit.made_up import planned, record, result, stood, store_run

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from harness.model import Result

_KNOWN = KnownIssue(check="capture.insert", link="https://example.org/1", owner="ada", expires="2099-01-01")
_CHECKS = ("capture.insert", "capture.update", "actor.moved-connection")
_TARGETS = ("direct", "transaction-unprepared", "sitzung-äöü-會話")

words = st.lists(st.text(st.characters(min_codepoint=33, exclude_categories=["C", "Z"]), min_size=1, max_size=30))


# --- lines that break between words ----------------------------------------------------------------------


@given(st.lists(words.map(" ".join)).map("\n".join), st.integers(1, 120))
def test_a_line_is_no_wider_than_the_screen_unless_it_is_one_word(text: str, width: int) -> None:
    lines = list(wrapped(text, width, cell_len))
    assert all(cell_len(line) <= width or " " not in line.strip() for line in lines)
    assert " ".join(lines).split() == text.split()


@given(words.map(lambda found: shlex.join(["harness", *found])), st.integers(1, 120))
def test_a_command_that_breaks_is_still_the_same_command(command: str, width: int) -> None:
    lines = list(wrapped(f"  {REPRODUCE}{command}", width))
    assert all(line.endswith(" \\") for line in lines[:-1])
    copied = "\n".join(lines).removeprefix(f"  {REPRODUCE}")
    assert shlex.split(copied.replace(" \\\n", " ")) == shlex.split(command)


def test_a_command_with_an_open_quote_stays_on_one_line() -> None:
    assert len(list(wrapped(f"{REPRODUCE}harness verify 'a b c d", 12))) == 1


def test_further_lines_are_indented() -> None:
    assert list(wrapped("Issue: one two three\n  reproduce: x", 12)) == ["Issue: one", "  two three", "  reproduce: x"]


@given(st.text(max_size=30), st.integers(0, 20))
def test_a_shortened_text_fits(text: str, width: int) -> None:
    found = shortened(text, width, cell_len)
    assert cell_len(found) <= width
    assert found == text or found.endswith("…") or width == 0


# --- the live display ------------------------------------------------------------------------------------


def counted(*results: Result) -> ProgressCounts:
    """Return the progress of a run that planned three checks on each topology."""
    counts = ProgressCounts()
    plan = tuple(planned(target, check) for target in _TARGETS for check in _CHECKS)
    counts.add(RunStarted(replace(record(), plan=plan), "reports/runs/r"))
    for found in results:
        counts.add(CheckStarted(found.target, found.check))
        counts.add(CheckFinished(found))
    return counts


ISSUE = result("direct", "capture.insert", Status.ISSUE, "rows: expected 1, observed 0")
RESULTS = (ISSUE, replace(ISSUE, check="capture.update", known=_KNOWN), result(_TARGETS[1], "capture.insert"))


@given(st.integers(1, 200), st.integers(1, 10))
def test_the_live_display_fits_into_the_screen(width: int, most: int) -> None:
    counts = counted(*RESULTS)
    counts.add(LabStarting("direct"))
    counts.add(CheckStarted("direct", "actor.moved-connection"))
    lines = [line.plain for line in live_lines(counts.view(), 0.0, width, most)]
    assert all(cell_len(line) <= width for line in lines)
    assert len(lines) > min(most, len(_TARGETS))


@pytest.mark.parametrize("width", [40, 80])
def test_each_topology_has_its_counts_at_any_width(width: int) -> None:
    lines = [line.plain for line in live_lines(counted(*RESULTS).view(), 0.0, width, 9)]
    assert [re.sub(r"[█░]", "", line).split()[1:6] for line in lines[:3]] == [
        ["2/3", "0", "OK", "2", "Issue"],
        ["1/3", "1", "OK", "0", "Issue"],
        ["0/3", "0", "OK", "0", "Issue"],
    ]


def test_rows_that_are_not_run_are_counted_while_the_run_goes_on() -> None:
    not_run = result("direct", "capture.delete", Status.NOT_RUN, "could not force a move")
    lines = [line.plain for line in live_lines(counted(*RESULTS, not_run).view(), 0.0, 60, 9)]
    assert ["1 Not run" in line for line in lines[:3]] == [True, False, False]


def test_the_counts_say_how_much_is_done_and_what_runs() -> None:
    counts = counted(*RESULTS)
    counts.add(LabStarting("direct"))
    view = counts.view()
    view = replace(view, ended=view.began + 80)
    assert view.line(view.began + 80) == (
        "1:20 elapsed, 3 of 9 rows, about 3 min left; 1 OK, 2 Issue (1 known); running: direct"
    )


def lasting(*reports: tuple[float, float], monkeypatch: pytest.MonkeyPatch) -> ProgressCounts:
    """Return the counts of a check that reports `(second, faults done)` of 4 faults."""
    counts = counted()
    counts.add(LabStarting("direct"))
    counts.add(CheckStarted("direct", _CHECKS[0]))
    for second, done in reports:
        monkeypatch.setattr("harness.cli.progress.time.monotonic", lambda second=second: 1000 + second)
        counts.add(CheckProgress("direct", _CHECKS[0], done, 4, "server-killed"))
    return counts


def test_a_check_that_lasts_says_which_step_it_does_and_how_much_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    view = lasting((0, 0), monkeypatch=monkeypatch).view()
    assert view.line(1000.0).endswith("running: direct (capture.insert: server-killed, 0 of 4)")
    view = lasting((0, 0), (10, 1), (30, 2), monkeypatch=monkeypatch).view()
    assert view.line(1030.0).endswith("running: direct (capture.insert: server-killed, 2 of 4, about 30 s left)")
    assert view.topologies[0].steps[_CHECKS[0]].left_s(1050.0) == pytest.approx(10.0)
    assert view.topologies[0].steps[_CHECKS[0]].left_s(2000.0) == pytest.approx(0.0)
    assert "about 30 s left; " in view.line(1030.0)
    narrow, wide = (next(live_lines(view, 1030.0, width, 5)).plain for width in (90, 140))
    assert "  starting: server-killed, 2 of" in narrow
    assert wide.endswith("  starting: capture.insert: server-killed, 2 of 4, about 30 s left")


def test_the_last_check_knows_how_much_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows that are done took longer than the last one takes."""
    counts = ProgressCounts()
    monkeypatch.setattr("harness.cli.progress.time.monotonic", lambda: 1000.0)
    plan = tuple(planned("direct", check) for check in _CHECKS[:2])
    counts.add(RunStarted(replace(record(), plan=plan), "reports/runs/r"))
    counts.add(CheckFinished(result("direct", _CHECKS[1])))
    counts.add(CheckStarted("direct", _CHECKS[0]))
    for second, done in ((1090.0, 0), (1100.0, 1)):
        monkeypatch.setattr("harness.cli.progress.time.monotonic", lambda second=second: second)
        counts.add(CheckProgress("direct", _CHECKS[0], done, 2, "seconds of load"))
    assert counts.view().summary(1100.0) == "1:40 elapsed, 1 of 2 rows, about 10 s left"


def test_the_steps_of_a_check_end_with_it_and_begin_again_under_a_control(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = lasting((0, 0), (10, 4), (20, 0), (22, 1), monkeypatch=monkeypatch)
    assert counts.view().topologies[0].steps[_CHECKS[0]].left_s(1022.0) == pytest.approx(6.0)
    counts.add(CheckFinished(result("direct", _CHECKS[0])))
    assert counts.view().topologies[0].steps == {}


def test_topologies_that_run_are_shown_before_those_that_ended() -> None:
    states = ("stopped", "verifying", "waiting", "starting", "did not start")
    rows = [TopologyProgress(state, state=state) for state in states]
    shown, left_out = shown_first(rows, 3)
    assert [row.topology for row in shown] == ["verifying", "starting", "did not start"]
    assert left_out == 2


# --- the estimate ----------------------------------------------------------------------------------------


def test_without_earlier_runs_the_estimate_follows_from_the_share_that_is_done() -> None:
    assert left_s((), 25, 100, 30.0) == pytest.approx(90.0)
    assert left_s((), 1, 100, 30.0) is None
    assert left_s((), 50, 100, 1.0) is None
    assert left_s((), 0, 0, 30.0) == pytest.approx(0.0)


EARLIER = (10.0, 12.0, 20.0, 60.0)


@pytest.mark.parametrize(
    ("done", "elapsed_s", "expected"),
    [
        (0, 0.0, 60.0),
        (0, 4.0, 56.0),
        # servers that start slower than before say nothing about the checks
        (0, 30.0, 50.0),
        (2, 12.0, 48.0),
        # twice as slow as before: half of the rows count for half of the difference
        (2, 24.0, 72.0),
        (3, 20.0, 40.0),
        (4, 60.0, 0.0),
    ],
)
def test_earlier_runs_say_how_much_is_left(done: int, elapsed_s: float, expected: float) -> None:
    assert left_s(EARLIER, done, 4, elapsed_s) == pytest.approx(expected)


@given(
    st.lists(st.floats(0, 1e6), max_size=20).map(sorted),
    st.integers(0, 50),
    st.integers(0, 50),
    st.floats(0, 1e6),
)
def test_an_estimate_is_never_negative(earlier: list[float], done: int, planned_rows: int, elapsed_s: float) -> None:
    left = left_s(earlier, min(done, planned_rows), planned_rows, elapsed_s)
    assert left is None or (left >= 0 and about(left))


@given(
    st.lists(st.floats(0, 1e4), max_size=20).map(sorted),
    st.integers(1, 9),
    st.floats(0, 1e4),
    st.lists(st.floats(0, 1e4), min_size=2).map(sorted),
)
def test_an_estimate_does_not_grow_until_the_next_row_ends(
    earlier: list[float], done: int, at_last_s: float, waits_s: list[float]
) -> None:
    found = [left_s(earlier, done, 10, at_last_s + wait_s, since_s=wait_s) for wait_s in waits_s]
    shown = [left for left in found if left is not None]
    assert all(later <= before + 1e-3 for before, later in pairwise(shown))
    # an estimate that was too short does not come back
    assert None not in found[: len(shown)]


def test_a_check_that_lasts_without_steps_ends_an_estimate_that_is_shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    assert left_s((), 9, 10, 90.0, used_s=5.0) == pytest.approx(10.0)
    assert left_s((), 9, 10, 90.0, used_s=11.0) is None
    counts = ProgressCounts()
    plan = tuple(planned("direct", check) for check in _CHECKS[:3])
    second = 1000.0
    monkeypatch.setattr("harness.cli.progress.time.monotonic", lambda: second)
    counts.add(RunStarted(replace(record(), plan=plan), "reports/runs/r"))
    counts.add(CheckStarted("direct", _CHECKS[0]))
    second = 1020.0
    counts.add(CheckFinished(result("direct", _CHECKS[1])))
    assert counts.view().summary(1030.0) == "0:30 elapsed, 1 of 3 rows, about 30 s left"
    assert counts.view().summary(1031.0) == "0:31 elapsed, 1 of 3 rows"
    counts.add(CheckProgress("direct", _CHECKS[0], 0, 2, "runner killed"))
    assert counts.view().summary(1031.0) == "0:31 elapsed, 1 of 3 rows"
    second = 1040.0
    counts.add(CheckProgress("direct", _CHECKS[0], 1, 2, "runner stopped"))
    assert counts.view().summary(1040.0) == "0:40 elapsed, 1 of 3 rows, about 20 s left"


def earlier_run(reports: Path, results: list[Result], *, number: int = 1, state: str = "finished") -> Path:
    """Store a run of these results, which began with the year, and return its folder."""
    written = replace(
        record(f"20260101T00000{number}Z-aaaaaaaa", state=state),
        plan=tuple(planned(found.target, found.check) for found in results),
        started_at="2026-01-01T00:00:00.000Z",
        ended_at="2026-01-01T01:00:00.000Z",
    )
    return store_run(reports, results, written).folder


def timed(check: str, second: int, duration_s: float) -> Result:
    return replace(
        result("direct", check), started_at=f"2026-01-01T00:00:{second:02}.000Z", duration_ms=duration_s * 1000
    )


def test_the_ends_of_the_same_rows_come_from_the_newest_finished_run(tmp_path: Path) -> None:
    plan = [planned("direct", check) for check in _CHECKS[:2]]
    assert earlier_ends(tmp_path, plan) == ()
    rows = [timed(_CHECKS[0], 4, 2.0), timed(_CHECKS[1], 6, 4.0)]
    earlier_run(tmp_path, rows)
    earlier_run(tmp_path, [timed(_CHECKS[0], 4, 30.0)], number=2, state="interrupted")
    assert earlier_ends(tmp_path, plan) == (6.0, 10.0)


def test_the_time_of_other_rows_is_left_out(tmp_path: Path) -> None:
    """The run took 24 s, most of them for another check."""
    earlier_run(tmp_path, [timed(_CHECKS[0], 4, 18.0), timed(_CHECKS[1], 22, 2.0)])
    assert earlier_ends(tmp_path, [planned("direct", _CHECKS[1])]) == (6.0,)
    assert earlier_ends(tmp_path, [planned("session", _CHECKS[1])]) == ()


@pytest.mark.parametrize("options", ["--for 10m", "--rounds 9", "--repeat 3", "--set postgres=15"])
def test_a_row_with_other_options_says_nothing_about_the_time(tmp_path: Path, options: str) -> None:
    """A load of ten minutes does not make the same load of thirty seconds last ten minutes, or the other way round."""
    short = planned("direct", _CHECKS[0])
    long = replace(short, reproduce=f"{short.reproduce} {options}")
    earlier_run(tmp_path, [replace(timed(_CHECKS[0], 4, 30.0), reproduce=short.reproduce)])
    earlier_run(tmp_path, [replace(timed(_CHECKS[0], 4, 600.0), reproduce=long.reproduce)], number=2)
    assert earlier_ends(tmp_path, [short]) == (34.0,)
    assert earlier_ends(tmp_path, [long]) == (604.0,)
    assert earlier_ends(tmp_path, [replace(short, reproduce=f"{short.reproduce} --for 1h")]) == ()


@pytest.mark.parametrize(
    "damage", [b"", b"{", b'{"topology": 1}', b"\xff", b'{"topology":"a","check":"b","started_at":"x"}']
)
def test_a_damaged_run_only_costs_the_estimate(tmp_path: Path, damage: bytes) -> None:
    folder = earlier_run(tmp_path, [timed(_CHECKS[0], 4, 18.0)])
    assert earlier_ends(tmp_path, [planned("direct", _CHECKS[0])]) == (22.0,)
    for name in ("results.jsonl", "run.json"):
        (folder / name).write_bytes(damage)
        assert earlier_ends(tmp_path, [planned("direct", _CHECKS[0])]) == ()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "about 5 s"), (12.0, "about 10 s"), (59.0, "about 60 s"), (61.0, "about 1 min"), (5400.0, "about 1.5 h")],
)
def test_an_estimate_is_a_round_number(seconds: float, text: str) -> None:
    assert about(seconds) == text


@pytest.mark.parametrize(("seconds", "text"), [(7.9, "0:07"), (750.0, "12:30"), (3723.0, "1:02:03")])
def test_a_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


# --- without a terminal ----------------------------------------------------------------------------------


def run_events() -> Iterator[Event]:
    """Yield a run with every status."""
    rows = (*RESULTS, result(_TARGETS[1], "capture.update", Status.NA, "no pooler"))
    gap = result(_TARGETS[1], "actor.moved-connection", Status.NOT_RUN, "could not force a move")
    plan = tuple(planned(found.target, found.check) for found in (*rows, gap))
    started = replace(record(), plan=plan)
    yield RunStarted(started, "reports/runs/r")
    for found in (*rows, gap):
        yield CheckStarted(found.target, found.check)
        yield CheckFinished(found)
    yield RunEnded(started)


def printed(events: Iterable[Event], *, verbose: bool = False) -> list[str]:
    stream = io.StringIO()
    terminal = Terminal(str, stream, verbose=verbose)
    for event in events:
        terminal(event)
    terminal.close()
    assert "\x1b" not in stream.getvalue()
    return stream.getvalue().splitlines()


def test_a_log_has_only_what_is_not_ok() -> None:
    lines = printed(run_events())
    assert [line.partition("  0.01s")[0].split() for line in lines[1:]] == [
        ["direct", "Issue", "capture.insert"],
        ["direct", "Issue", "(known)", "capture.update"],
        ["transaction-unprepared", "Not", "run", "actor.moved-connection"],
    ]
    assert len(printed(run_events(), verbose=True)) == len(lines) + 2


def test_the_servers_of_faults_and_loads_are_named_with_their_settings() -> None:
    found = stood("transaction")
    postgres = replace(found.services[0], settings={"fsync": "on", "synchronous_commit": "on"})
    own = replace(found, services=(postgres, *found.services[1:]), storage="on disk, with fsync: for a reason")
    lines = printed([LabReady("transaction", found), LabReady("transaction", own, own_servers=True)])
    servers = "ready after 0.70 s (postgres 17.5 (Debian), pgbouncer 1.24.1; data"
    assert lines == [
        f"transaction: {servers} in memory, 1024 MiB at most)",
        f"transaction: own servers of faults and loads {servers} on disk, fsync on, synchronous_commit on)",
    ]


def image_events(*, fails: bool) -> list[Event]:
    events: list[Event] = []
    with contextlib.ExitStack() as stack:
        if fails:
            stack.enter_context(pytest.raises(ZeroDivisionError))
        stack.enter_context(making_image(events.append, "postgres:17"))
        events.extend(ImageProgress("postgres:17", f"Step {number}/30") for number in range(1, 31))
        _ = 1 / (not fails)
    return events


def test_an_image_is_one_line_and_its_steps_are_printed_when_it_fails() -> None:
    [line] = printed(image_events(fails=False))
    assert re.fullmatch(r"image postgres:17: built in \d+\.\d s", line)
    assert [line.rpartition(" ")[2] for line in printed(image_events(fails=True))] == [
        f"{number}/30" for number in range(11, 31)
    ]
    assert len(printed(image_events(fails=False), verbose=True)) == 32
    assert len(printed(image_events(fails=True), verbose=True)) == 31


def test_a_log_shows_the_progress_until_the_run_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal_module, "BEAT_S", 0.01)
    stream = io.StringIO()
    terminal = Terminal(str, stream)
    *events, end = run_events()
    for event in events:
        terminal(event)

    def two_lines() -> None:
        if stream.getvalue().count(" elapsed, 5 of 5 rows; 1 OK, 2 Issue (1 known), 1 N/A, 1 Not run") < 2:
            raise NotYet(stream.getvalue())

    poll(two_lines, what="two lines of progress", deadline_s=30, interval_s=0.01)
    heartbeat = terminal._heartbeat
    terminal(end)
    assert heartbeat
    heartbeat._thread.join(30)
    assert not heartbeat._thread.is_alive()


def test_the_run_goes_on_when_the_reader_of_its_log_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal_module, "BEAT_S", 0.01)
    reading, writing = os.pipe()
    os.close(reading)
    with contextlib.suppress(BrokenPipeError), os.fdopen(writing, "w") as stream:
        terminal = Terminal(str, stream)
        *events, end = run_events()
        for event in events:
            terminal(event)
        heartbeat = terminal._heartbeat
        assert heartbeat
        terminal._beat()
        assert heartbeat._thread.is_alive()
        terminal(end)
        heartbeat._thread.join(30)
        terminal._console._console.file.close()  # in place of the pipe


@pytest.mark.parametrize(("alone", "beats"), [(True, 3), (False, 2)])
def test_the_output_of_a_command_is_not_mixed_with_the_progress(*, alone: bool, beats: int) -> None:
    """While images are made, no command prints."""
    stream = io.StringIO()
    terminal = Terminal(str, stream)
    terminal.has_screen_alone = alone
    started, *_ = run_events()
    for event in (started, ImageStarted("postgres:17", "building"), ImageProgress("postgres:17", "Step 1/1")):
        terminal(event)
        if event is not started:
            terminal._beat()
    terminal(ImageReady("postgres:17", "built", 1.0))
    terminal._beat()
    terminal.close()
    lines = [line for line in stream.getvalue().splitlines() if " elapsed" in line]
    assert [line.partition("rows, ")[2] for line in lines] == [
        "building 1 image, 0 steps done",
        "building 1 image, 1 step done",
        "",
    ][:beats]


# --- a pseudo-terminal -----------------------------------------------------------------------------------

#: replays a run, the end of a run, and an error in a process of its own
_REPLAY = """
import json, os, sys
from pathlib import Path
from types import SimpleNamespace
from harness.cli import recap
from harness.cli.exit_codes import rows_of
from harness.cli.terminal import Terminal
from harness.store import StoredRun
from tests.unit import test_terminal as given
def replay():
    terminal = Terminal(str)
    for event in given.run_events():
        terminal(event)
    events = list(given.run_events())
    run = StoredRun(Path("r"), events[0].record, tuple(e.result for e in events if hasattr(e, "result")), (), (), 0)
    recap.print_recap(run)
    recap.say_issues(SimpleNamespace(terminal=terminal), rows_of(run))
    terminal.close()
    terminal.say("harness: one error with a sentence that is longer than forty columns of a narrow screen")
for tty, variables in json.loads(sys.argv[1]):
    if child := os.fork():
        os.close(tty)
        if code := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
            sys.exit(code)
        continue
    os.setsid()
    for standard in range(3):
        os.dup2(tty, standard)
    os.environ.update(variables)
    replay()
    break
"""
#: columns and variables of each terminal
_TERMINALS: dict[str, tuple[int, dict[str, str]]] = {
    "narrow": (40, {}),
    "wide": (80, {}),
    "without colours": (80, {"NO_COLOR": "1"}),
    "dumb": (80, {"TERM": "dumb"}),
}


@pytest.fixture(scope="module")
def written() -> dict[str, str]:
    """Return everything that the replay writes to each terminal. A process loads the code, and forks for each of them."""
    kept = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "COLUMNS", "LINES", "CI"}}
    pieces: dict[str, list[bytes]] = {name: [] for name in _TERMINALS}
    ends = {name: os.openpty() for name in _TERMINALS}
    for name, (_, theirs) in ends.items():
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, _TERMINALS[name][0], 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-c", _REPLAY, json.dumps([(ends[name][1], _TERMINALS[name][1]) for name in _TERMINALS])],
        env={**kept, "PYTHONPATH": str(places.SHIPPED), "TERM": "xterm-256color"},
        stdin=subprocess.DEVNULL,
        pass_fds=[theirs for _, theirs in ends.values()],
        start_new_session=True,
    )

    def read(name: str) -> None:
        with contextlib.suppress(OSError):  # Linux reports the end of a pseudo-terminal as an error
            while piece := os.read(ends[name][0], 65536):
                pieces[name].append(piece)

    readers = [Thread(target=read, args=(name,)) for name in _TERMINALS]
    for _, theirs in ends.values():
        os.close(theirs)
    for reader in readers:
        reader.start()
    code = process.wait(60)
    for reader in readers:
        reader.join(60)
    for ours, _ in ends.values():
        os.close(ours)
    texts = {name: b"".join(found).decode() for name, found in pieces.items()}
    assert code == 0, texts
    return texts


def lines_of(text: str) -> list[str]:
    """Return the lines of a terminal's output, without control sequences."""
    return re.split(r"\r\n|\r", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text))


@pytest.mark.parametrize("terminal", ["narrow", "wide"])
def test_no_line_is_wider_than_the_terminal(written: dict[str, str], terminal: str) -> None:
    text, (columns, _) = written[terminal], _TERMINALS[terminal]
    assert "\x1b[" in text
    lines = lines_of(text)
    assert [line for line in lines if cell_len(line) > columns and " " in line.strip()] == []
    assert any(line.endswith("elapsed, 0 of 5 rows") for line in lines)
    headings = [line for line in lines if line.split()[:2] == ["OK", "Issue"]]
    if columns == 80:
        assert ["Not run" in heading for heading in headings] == [True]
        assert [line.split()[:3] for line in lines if line.startswith(("direct  ", "transaction-unprepared  "))][
            -2:
        ] == [
            ["direct", "0", "2"],
            ["transaction-unprepared", "1", "0"],
        ]
    else:
        assert headings == []
        begin = lines.index("transaction-unprepared")
        assert lines[begin + 1].startswith("  OK 1, Issue 0")
        assert any("Not run" in line for line in lines[begin + 1 : begin + 4])


def test_no_color_leaves_no_colours(written: dict[str, str]) -> None:
    assert re.search(r"\x1b\[[0-9;]*3[0-9]m", written["wide"])
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", written["without colours"])
    assert "one error" in written["without colours"]


def test_a_dumb_terminal_gets_plain_lines(written: dict[str, str]) -> None:
    assert "\x1b" not in written["dumb"]
    assert "one error" in written["dumb"]
