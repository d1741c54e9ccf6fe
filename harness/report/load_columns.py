"""The columns of the tables about faults, load, the three questions and repetition. Templates get it by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.report.cells import Badge, Cell, Evidence, Gap, Text, joined
from harness.report.job_rows import JobRow
from harness.report.load_rows import ABSENT, FaultRow, LoadRow
from harness.report.repetition import ConsecutiveRow, QuarantineRow, RepeatedRow
from harness.report.table import Column, Field, badge, code_field, listed, source, table, text_field
from harness.report.trials import TrialRow

if TYPE_CHECKING:
    from harness.report.trials import TrialAnswer

_LINE = Gap("; ", "<br>")


def _answer(name: str) -> Field:
    def shown(answer: TrialAnswer) -> Cell:
        return Cell(joined(Gap(": ", " "), Badge(answer.status), Text(answer.reason)))

    return Field(name, shown)


TRIALS = table(
    TrialRow,
    Column("Topology", text_field("target")),
    Column("Smoke", _answer("smoke")),
    Column("Resilience", _answer("resilience")),
    Column("Soak", _answer("soak")),
)


def _fault(row: FaultRow) -> Cell:
    return Cell((Evidence(row.fault, row.target, row.check),))


def _recovered(row: FaultRow) -> Cell:
    both = row.recovered not in {ABSENT, row.longest}
    return Cell((Text(f"{row.recovered} s, {row.longest} s at the longest" if both else row.longest),))


def _case(row: JobRow) -> Cell:
    return Cell((Evidence(row.case, row.target, row.check),))


def _load(row: LoadRow) -> Cell:
    return Cell((Evidence(row.load, row.target, row.check),))


def _rate(row: LoadRow) -> Cell:
    beside = "" if row.plain_rate == ABSENT else f", {row.plain_rate} without the trail"
    return Cell((Text(f"{row.rate}{beside}"),))


FAULTS = table(
    FaultRow,
    Column("Fault", _fault),
    Column("Topology", text_field("target")),
    Column("Status", badge("status")),
    Column("Injected", text_field("injected")),
    Column("Acknowledged", text_field("acknowledged")),
    Column("Lost", text_field("lost")),
    Column("Failed", text_field("failed")),
    Column("Unknown", text_field("unknown")),
    Column("Recovered after", _recovered),
    Column("Note", text_field("note")),
)

JOBS = table(
    JobRow,
    Column("Case", _case),
    Column("Topology", text_field("target")),
    Column("Status", badge("status")),
    Column("Note", text_field("note")),
)

LOADS = table(
    LoadRow,
    Column("Load", _load),
    Column("Topology", text_field("target")),
    Column("Status", badge("status")),
    Column("Seconds", text_field("seconds")),
    Column("Transactions", text_field("transactions")),
    Column("Lost", text_field("lost")),
    Column("Unknown", text_field("unknown")),
    Column("Per second", _rate),
    Column("Latency p50 / p95 / p99, ms", text_field("latency")),
    Column("Lag p95, ms", text_field("lag")),
    Column("Trail, bytes per write", text_field("growth")),
    Column("Note", text_field("note")),
)

# --- repetition ------------------------------------------------------------------------------------------


def _repeated(row: RepeatedRow) -> Cell:
    rows = Text(f"{row.number} row{'' if row.number == 1 else 's'}")
    return Cell((Evidence(row.check, row.topology, row.check) if row.check else rows,))


CONSECUTIVE = table(
    ConsecutiveRow,
    Column("Topology", text_field("topology")),
    Column("Status", badge("status")),
    Column("Runs, newest first", listed("runs")),
    Column("Notes", text_field("notes")),
    Column("Next run", code_field("command")),
)

REPEATED = table(
    RepeatedRow,
    Column("Topology", text_field("topology")),
    Column("Check", _repeated),
    Column("Status", badge("status")),
    Column("Flaky", text_field("flaky")),
    Column("Attempts", Field("counts", lambda counts: Cell((Text(counts),)))),
    Column("Failure rate, upper bound (95 %)", text_field("rate")),
    Column(
        "Of each run",
        Field("runs", lambda runs: Cell(joined(_LINE, *(Text(f"{run.run_id}: {run.counts}") for run in runs)))),
    ),
)

QUARANTINE = table(
    QuarantineRow,
    Column("Check", Field("check", lambda check: Cell((Evidence(check, "", check),)))),
    Column("Topologies", text_field("topologies")),
    Column("Decides the exit code", text_field("decides")),
    Column("Until", text_field("expires")),
    Column("Now", text_field("shown")),
    Column("Owner", text_field("owner")),
    Column("Link", source("link")),
)
