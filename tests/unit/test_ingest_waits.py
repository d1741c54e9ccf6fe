"""How long the suite `ingest` waits, by the settings of a pipeline: what it does not await is Not run, and no Issue."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from msgspec.structs import replace
from psycopg.errors import AdminShutdown

from harness.checks.record import NotApplicableError, NotExercisedError
from harness.ingest.cases import IngestCase
from harness.ingest.loading import REFERENCE, find
from harness.suites.ingest.cases import corrupt_download, late_upload, permanent_failure, store_fails
from harness.suites.ingest.running import IngestRun
from harness.suites.ingest.trace_cases import metrics
from harness.suites.ingest.worker_cases import killed_worker


class _StartedError(Exception):
    """The case has begun."""


class _Planned(IngestRun):
    """A pipeline that only promises: it has no servers."""

    def __init__(self, **settings: Any) -> None:
        self.pipeline = find(REFERENCE)
        self.settings = replace(self.pipeline.file.settings, **settings)
        self.case = IngestCase.END_TO_END

    def use_prepared_database(self) -> None:
        raise _StartedError


_CASES = {
    "permanent failure": permanent_failure,
    "late upload": late_upload,
    "store fails": store_fails,
    "killed worker": killed_worker,
    "corrupt download": corrupt_download,
    "metrics": metrics,
}


@pytest.mark.parametrize("case", _CASES)
def test_short_settings_are_awaited(case: str) -> None:
    with pytest.raises(_StartedError):
        _CASES[case](_Planned())


@pytest.mark.parametrize(
    ("case", "settings"),
    [
        ("permanent failure", {"attempts": 8, "shortest_delay_s": 1.0, "longest_delay_s": 30.0}),
        ("late upload", {"attempts": 8, "shortest_delay_s": 1.0, "longest_delay_s": 30.0}),
        ("store fails", {"shortest_delay_s": 20.0, "longest_delay_s": 20.0}),
        ("corrupt download", {"shortest_delay_s": 40.0, "longest_delay_s": 40.0}),
        ("killed worker", {"lease_s": 120.0}),
        ("killed worker", {"lease_s": 10.0, "poll_s": 15.0}),
        ("metrics", {"attempts": 8, "shortest_delay_s": 1.0, "longest_delay_s": 30.0}),
    ],
)
def test_settings_that_need_longer_than_the_harness_waits_are_not_run(case: str, settings: dict[str, float]) -> None:
    with pytest.raises(NotExercisedError, match=r"can take \d+ s, and no more than \d+ s are awaited"):
        _CASES[case](_Planned(**settings))


@pytest.mark.parametrize("case", ["permanent failure", "store fails", "metrics"])
def test_a_lease_or_a_longest_delay_that_a_case_does_not_need_changes_nothing(case: str) -> None:
    with pytest.raises(_StartedError):
        _CASES[case](_Planned(lease_s=300.0, longest_delay_s=300.0))


@pytest.mark.parametrize("case", ["store fails", "corrupt download"])
def test_a_pipeline_with_a_single_attempt_need_not_repeat_a_download(case: str) -> None:
    with pytest.raises(NotApplicableError, match="a single attempt"):
        _CASES[case](_Planned(attempts=1))


class _Connection:
    """A connection to the tables of a pipeline; it may have ended with its server."""

    closed = False
    info = SimpleNamespace(dbname="shop")

    def __init__(self, *, ended: bool) -> None:
        self._ended = ended

    def execute(self, _query: bytes) -> Any:
        if self._ended:
            raise AdminShutdown("terminating connection")
        columns = [SimpleNamespace(name=name) for name in ("id", "key", "status")]
        return _Rows(columns, [("u1", "p/u1", "indexed")])

    def close(self) -> None: ...


class _Rows(list[tuple[str, ...]]):
    def __init__(self, columns: list[SimpleNamespace], rows: list[tuple[str, ...]]) -> None:
        super().__init__(rows)
        self.description = columns


def _reading(*connections: _Connection) -> IngestRun:
    run, made = _Planned(), iter(connections)
    run._admin, run.database, run.rows, run.uploads, run.worker_names = None, "shop", {}, {}, set()
    run._fits, run._lost = True, ""
    lab = SimpleNamespace(connect_admin=lambda _database: next(made), answers=lambda: True)
    run.ctx = cast("Any", SimpleNamespace(lab=lab))
    return run


def test_a_connection_that_ended_with_a_server_that_is_back_says_nothing_about_the_query() -> None:
    run = _reading(_Connection(ended=True), _Connection(ended=False))
    run.require_found()
    assert [row.word for row in run.rows.values()] == ["indexed"]


def test_a_query_that_ends_each_connection_is_a_mistake_of_the_description() -> None:
    run = _reading(_Connection(ended=True), _Connection(ended=True))
    with pytest.raises(NotExercisedError, match=r"sql\.uploads: the query ends its connection"):
        run.require_found()
