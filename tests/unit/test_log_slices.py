"""The lines of the server logs that the page shows with a row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from harness.model import Status
from harness.report import log_slices as under_test
from harness.report.building import build_report
from harness.report.log_slices import LINES, WIDTH, log_slices
from harness.report.merging import merge
from tests.unit.made_up import PLAN, record, result, store_run

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from harness.report.tables import Report

CHECK = "actor.many-clients"
KEY = ("session", CHECK)
WRITTEN = "2026-01-01 00:00:05.000 UTC"
ABOUT = "harness_app@actor_many_clients_1e0cbc"


def report_of(folder: Path, *lines: str, status: Status = Status.ISSUE, service: str = "postgres") -> Report:
    """Return a report with one row, that ran for a second, and the log of a server."""
    row = replace(
        result("session", CHECK, status, "" if status is Status.OK else "why"),
        started_at="2026-01-01T00:00:05.000Z",
        duration_ms=1000.0,
    )
    stored = store_run(folder, [row], record())
    logs = stored.folder / "logs" / "session"
    logs.mkdir(parents=True)
    (logs / f"{service}.log").write_text("\n".join(lines), encoding="utf-8")
    return build_report(merge([stored], PLAN), folder)


def test_lines_about_the_database_of_the_check_while_it_ran(tmp_path: Path) -> None:
    report = report_of(
        tmp_path,
        f"2026-01-01 00:00:01.000 UTC {ABOUT} LOG: too early",
        f"{WRITTEN} [1] {ABOUT} ERROR:  cached plan",
        f"{WRITTEN} [1] harness_app@actor_many_1e0cbc ERROR:  of another check",
        f"{WRITTEN} [1] nothing about a database",
        f"2026-01-01T00:00:06.5Z {ABOUT} with another form of time",
        f"{ABOUT} without a time",
        f"2026-01-01 00:00:09.000 UTC {ABOUT} LOG: too late",
    )
    assert log_slices(report, tmp_path) == {
        KEY: (
            f"postgres: 00:00:05.000 UTC [1] {ABOUT} ERROR:  cached plan",
            f"postgres: 00:00:06.5Z {ABOUT} with another form of time",
        )
    }


def test_a_row_that_is_ok_has_no_slice(tmp_path: Path) -> None:
    report = report_of(tmp_path, f"{WRITTEN} {ABOUT} ERROR", status=Status.OK)
    assert log_slices(report, tmp_path) == {}


def test_the_telling_lines_are_kept_in_the_order_of_time(tmp_path: Path) -> None:
    many = [f"{WRITTEN} {ABOUT} login attempt {number}" for number in range(100)]
    errors = [f"2026-01-01 00:00:05.500 UTC {ABOUT} FATAL:  {number} {'x' * 500}" for number in range(100)]
    found = log_slices(report_of(tmp_path, *errors[:9], *many, *errors[9:]), tmp_path)[KEY]
    assert len(found) == LINES
    assert all("FATAL" in line for line in found)
    found = log_slices(report_of(tmp_path / "fewer", *errors[:9], *many), tmp_path / "fewer")[KEY]
    assert ["login attempt" in line for line in found] == [True] * 3 + [False] * 9
    assert max(map(len, found)) == WIDTH


def test_lines_are_redacted_and_printable(tmp_path: Path) -> None:
    report = report_of(tmp_path, f"{WRITTEN} {ABOUT} postgres://app:hunter22@db/app \x1b[31m\u202e")
    (line,) = log_slices(report, tmp_path)[KEY]
    assert "hunter22" not in line
    assert "\x1b" not in line
    assert "\u202e" not in line


def test_a_target_from_elsewhere_leads_to_no_other_folder(tmp_path: Path) -> None:
    report = report_of(tmp_path, f"{WRITTEN} {ABOUT} ERROR")
    name = "../logs/session"
    topologies = tuple(replace(row, environment=name) for row in report.topologies if row.environment == "session")
    rows = tuple(
        replace(row, planned=replace(row.planned, target=name)) for row in report.rows if row.planned.check == CHECK
    )
    assert log_slices(replace(report, topologies=topologies, rows=rows), tmp_path) == {}


def test_the_slices_of_a_report_are_bounded_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = report_of(tmp_path, f"{WRITTEN} {ABOUT} ERROR")
    monkeypatch.setattr(under_test, "TOTAL", 10)
    assert log_slices(report, tmp_path) == {}


def test_what_only_looks_like_a_time_is_no_time(tmp_path: Path) -> None:
    report = report_of(tmp_path, f"2026-99-99 99:99:99 ERROR {ABOUT}", f"{WRITTEN} ERROR {ABOUT}")
    [lines] = log_slices(report, tmp_path).values()
    assert len(lines) == 1
    rows = tuple(replace(row, result=replace(row.result, started_at="yesterday")) for row in report.rows)
    assert log_slices(replace(report, rows=rows), tmp_path) == {}
