"""The parts of the suite `jobs` that need no server: its controls, and what it makes of its looks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from harness import places
from harness.checks.judges import jobs as judged
from harness.checks.registry import Control
from harness.host.command import CommandResult
from harness.job_engines.loading import shipped
from harness.job_engines.sqlstates import sqlstates_in
from harness.job_engines.target_file import Case
from harness.lab.topologies import load_topologies
from harness.model import Prepare
from harness.suites.jobs.conclusion import is_about
from harness.suites.jobs.programs import tail_of, was_refused, why_failed
from harness.suites.jobs.residue import OnServerConnection, channels_on, kept_open, most_left
from harness.suites.jobs.rows import CLAIMS, job_checks

if TYPE_CHECKING:
    from collections.abc import Iterator

#: breaks that no control makes, since only a program of an engine could; the judge has a mutation for each
_BY_THE_JUDGE = {
    *(judged.INSTALLED, judged.EXITS, judged.LOOPS, judged.LOST, judged.STUCK),
    *(judged.LATE_LOST, judged.LATE_FAILED),
}


def controls() -> Iterator[tuple[Case, Control]]:
    for declared in job_checks(engine for engine in shipped() if engine.name == "absurd"):
        if isinstance(declared, Control) and "-default-" in declared.check:
            yield Case(declared.check.partition("-default-")[2]), declared


def expectations() -> set[str]:
    """Return the names of all expectations of the judge."""
    names = {name: value for name, value in vars(judged).items() if name.isupper() and isinstance(value, str)}
    unrelated = {"LATE", "APPROVE"}
    return {value for name, value in names.items() if name not in unrelated and not name.startswith("_")}


def test_each_case_has_a_claim() -> None:
    assert set(CLAIMS) == set(Case)


def test_each_expectation_is_broken_by_a_control_or_by_a_mutation_of_the_judge() -> None:
    assert {control.at for _, control in controls()} | _BY_THE_JUDGE == expectations()


def test_each_case_has_a_control_with_a_name_of_its_own() -> None:
    found = [(case, control.name) for case, control in controls()]
    assert len(set(found)) == len(found)
    assert {case for case, _ in found} == set(Case) - {Case.FORK}  # absurd does not claim it


def test_a_silent_job_is_kept_only_where_jobs_renew_their_lease_themselves() -> None:
    named = {
        declared.check
        for declared in job_checks(shipped())
        if isinstance(declared, Control) and declared.name == "a-silent-job-is-kept"
    }
    assert named == {f"jobs.absurd-{variant}-heartbeat" for variant in ("default", "pooler")}


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("FATAL:  no more connections allowed (max_client_conn)", True),
        ("psycopg.errors.ProtocolViolation: query_wait_timeout", True),
        ("FATAL:  sorry, too many clients already", True),
        ("error: connection pool is full, code: '53300'", True),
        ("ERROR:  08P01: transaction blocks not allowed in statement pooling mode", False),
        ("FATAL:  terminating connection due to administrator command", False),
    ],
)
def test_a_limit_of_connections_is_recognised(output: str, expected: bool) -> None:
    assert was_refused(output, sqlstates_in(output)) is expected


@pytest.mark.parametrize(
    ("looks", "expected"),
    [
        ([0] * 8, 0),
        ([1] * 8, 1),
        ([0, 1, 0, 1, 1, 1, 1, 1], 1),  # between two transactions of one connection
        ([0, 1, 0, 1, 0, 1, 1, 1], 0),  # transactions that come and go
        ([2, 2, 1, 2, 2, 3, 2, 2], 2),
    ],
)
def test_a_connection_is_kept_if_nearly_all_looks_see_a_transaction(looks: list[int], expected: int) -> None:
    assert kept_open(looks) == expected


def test_a_channel_that_the_end_of_a_worker_removes_by_chance_was_left_while_it_was_idle() -> None:
    idle = most_left({judged.PINNED: 0}, {judged.STATEMENTS: 1, judged.CHANNELS: 2})
    assert idle == {judged.PINNED: 0, judged.STATEMENTS: 1, judged.CHANNELS: 2}
    assert most_left(idle, {judged.STATEMENTS: 3, judged.CHANNELS: 0}) == idle | {judged.STATEMENTS: 3}


def test_a_channel_on_two_server_connections_is_one_channel() -> None:
    found = [OnServerConnection(pid=pid, statements=0, channels=names) for pid, names in ((1, ["a", "b"]), (2, ["a"]))]
    assert channels_on(found) == 2
    assert channels_on(()) == 0


def ended(printed: str) -> CommandResult:
    return CommandResult(exit_code=1, seconds=0.1, output=printed)


def test_a_failed_command_is_named_by_its_error_and_not_by_the_caret_below_its_statement() -> None:
    printed = 'psycopg.errors.UndefinedTable: relation "nadia" does not exist\nLINE 1: INSERT INTO nadia\n                    ^\n'
    assert why_failed(ended(printed)) == (
        '42P01: psycopg.errors.UndefinedTable: relation "nadia" does not exist (exit code 1)'
    )


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ("", "it printed nothing"),
        ("a\nb\n", "a\nb"),
        ("x" * 300 + "\n" + "y" * 300, "y" * 300),
        ("x" * 300 + "\n" + "y" * 350, "y" * 350),
        ("x" * 400, "…" + "x" * 350),
    ],
)
def test_the_end_of_an_output_begins_with_a_line(printed: str, expected: str) -> None:
    assert tail_of(ended(printed)) == f"{expected} (exit code 1)"


@pytest.mark.parametrize(
    ("topology", "prepare", "expected"),
    [
        ("transaction-unprepared", None, True),
        ("transaction", None, False),
        ("statement", None, False),
        ("session", Prepare.UNNAMED, False),
        ("direct", Prepare.UNNAMED, False),
        # PgBouncer 1.18 runs as the topology transaction where no other version is installed
        ("transaction", Prepare.UNNAMED, True),
    ],
)
def test_advice_on_prepared_statements_depends_on_what_the_pooler_that_runs_tracks(
    topology: str, prepare: Prepare | None, *, expected: bool
) -> None:
    declared = load_topologies(places.TOPOLOGIES)[topology]
    if prepare:
        declared = replace(declared, client=replace(declared.client, prepare=prepare))
    [oban] = (engine for engine in shipped() if engine.name == "oban")
    about = [entry for entry in oban.file.documented if is_about(entry, Case.FAULTS, "default", declared)]
    assert any(entry.prepared_statements for entry in about) is expected
