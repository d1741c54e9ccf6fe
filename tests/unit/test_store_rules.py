"""The rules of stored rows at their boundaries, and the parts of writing and reading that no forgery exercises."""

from __future__ import annotations

import hashlib
import json
import math
import re
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from harness.errors import ConfigError, StoreError, UsageError
from harness.model import (
    CHECK_BROKE,
    EnvironmentEvidence,
    EvidenceClass,
    Expectation,
    KnownIssue,
    MutationState,
    ObservedProof,
    Proof,
    Result,
    RunRecord,
    Status,
    TopologyEvidence,
    TrailProof,
)
from harness.redaction import Redactor
from harness.store import (
    Integrity,
    RunStore,
    Verdict,
    compare,
    kept_runs,
    read_run,
    read_runs,
    require_writable,
    run_folders_in,
    statement_of,
    write_atomically,
    write_together,
    writing,
)
from harness.store.chain import head_of, link_of, linked
from harness.store.files import cannot_write, regular_file, sha256_of
from harness.store.rules import (
    ContradictionError,
    RowRules,
    contradiction_in_observed_proof,
    contradiction_in_proof,
    contradiction_in_result,
    contradiction_in_trail_proof,
    contradictions_in_record,
    seconds_of,
)
from tests.tables import each_row
from tests.unit.forging import sealed_run, write_sealed
from tests.unit.made_up import CHECKS, PLAN, mixed, record, result, store_run

if TYPE_CHECKING:
    from pathlib import Path

STARTED = "2026-01-01T00:00:00.000Z"
ENDED = "2026-01-01T00:00:09.000Z"
HELD = Expectation(name="rows", expected="1", observed="1", held=True)
BROKEN = replace(HELD, observed="0", held=False)


@each_row(
    ("time", "seconds"),
    [
        ("1970-01-01T00:00:01Z", 1.0),
        ("1970-01-01T00:00:01.5Z", 1.5),
        ("1970-01-02T00:00:00.250000Z", 86400.25),
        ("1970-01-01T00:00:01.0000000Z", None),
        ("1970-01-01T00:00:01", None),
        ("1970-01-01T00:00:01+00:00", None),
        ("1970-01-32T00:00:01Z", None),
        (" 1970-01-01T00:00:01Z", None),
        ("", None),
    ],
)
def test_a_time_of_the_evidence_is_utc_and_in_one_form(time: str, seconds: float | None) -> None:
    assert seconds_of(time) == seconds


# --- rows ------------------------------------------------------------------------------------------------


def row(**fields: Any) -> Result:
    return replace(result("direct", CHECKS[0]), **fields)


@each_row(
    ("fields", "sentence"),
    [
        ({}, ""),
        ({"duration_ms": 0.0}, ""),
        ({"duration_ms": 86_400_000.0}, ""),
        ({"duration_ms": 86_400_000.1}, "a duration that no check has"),
        ({"duration_ms": math.inf}, "a duration that no check has"),
        ({"duration_ms": math.nan}, "a duration that no check has"),
        (
            {
                "status": Status.ISSUE,
                "reason": "x",
                "known": KnownIssue(check=CHECKS[0], link="https://example.org", owner="ada", expires=""),
            },
            "",
        ),
        (
            {
                "status": Status.ISSUE,
                "reason": "x",
                "known": KnownIssue(
                    check=CHECKS[0], link="https://example.org", owner="ada", expires="", topologies=("a", "direct")
                ),
            },
            "",
        ),
    ],
)
def test_a_result_is_judged_at_its_boundaries(fields: dict[str, Any], sentence: str) -> None:
    assert contradiction_in_result(row(**fields)) == sentence


@each_row(
    ("fields", "sentence"),
    [
        # times are rounded to milliseconds, and clocks to a second
        ({"started_at": "2025-12-31T23:59:59.000Z"}, ""),
        ({"started_at": "2025-12-31T23:59:58.999Z"}, "it started before its run"),
        ({"started_at": ENDED, "duration_ms": 1000.0}, ""),
        ({"started_at": ENDED, "duration_ms": 1001.0}, "it ended after its run"),
        ({"started_at": ""}, ""),
        ({"status": Status.ISSUE, "reason": "x", "expectations": (HELD, BROKEN)}, ""),
        ({"status": Status.ISSUE, "reason": f"{CHECK_BROKE}: x", "expectations": ()}, ""),
        (
            {"status": Status.ISSUE, "reason": "x", "expectations": (replace(BROKEN, counts=False),)},
            "Issue without an expectation that did not hold",
        ),
        ({"status": Status.NOT_RUN, "reason": "x", "expectations": (replace(BROKEN, counts=False),)}, ""),
        ({"status": Status.NA, "reason": "x", "expectations": (HELD,)}, ""),
    ],
)
def test_a_result_is_judged_against_its_run(fields: dict[str, Any], sentence: str) -> None:
    assert RowRules(record()).of_result(row(**fields), record()) == sentence
    unchained = RowRules(record(), chained=False).of_result(row(**fields), record())
    assert unchained == ""


@pytest.mark.parametrize("status", list(Status))
def test_only_a_target_that_was_there_is_judged(status: Status) -> None:
    made = result("staging", CHECKS[0], status, "" if status is Status.OK else "why")
    judged = f"{status} on staging, which did not start or was not reached"
    planned = replace(PLAN[0], target="staging")

    def said(**fields: Any) -> str:
        written = replace(record(), plan=(planned,), **fields)
        return RowRules(written).of_result(made, written)

    missing = judged if status in {Status.OK, Status.ISSUE} else ""
    declared = record().topologies["direct"].declared
    assert said() == missing
    assert said(environments={"staging": EnvironmentEvidence(name="staging", reached=False, reason="x")}) == missing
    assert said(topologies={"staging": TopologyEvidence(declared=declared, stood=False, reason="x")}) == missing
    assert said(environments={"staging": EnvironmentEvidence(name="staging", reached=True)}) == ""
    assert said(topologies={"staging": TopologyEvidence(declared=declared, stood=True)}) == ""


def test_proofs_are_judged_at_their_boundaries() -> None:
    proof = Proof(topology="direct", check=CHECKS[0], control="x", at="rows", proven=True, applicable=True, reason="")
    assert contradiction_in_proof(proof) == ""
    assert contradiction_in_proof(replace(proof, broken=(BROKEN,))) == ""
    assert contradiction_in_proof(replace(proof, proven=False, applicable=False, reason="one process")) == ""
    assert contradiction_in_proof(replace(proof, proven=False, reason=" ")) == "not proven without a reason"
    rules = RowRules(record())
    assert rules.of_proof(proof) == ""
    rules.accept(proof)
    assert rules.of_proof(proof) == f"more than one row of direct {CHECKS[0]} x"
    assert rules.of_proof(replace(proof, control="y")) == ""
    assert rules.of_proof(replace(proof, topology="another")) == f"the plan does not name {CHECKS[0]} on another"


def test_proofs_of_breaks_are_judged_at_their_boundaries() -> None:
    proof = TrailProof(
        topology="direct", name="off", what="x", tried=3, caught=("a", "b"), missed=("c",), unexpected=("b",)
    )
    assert contradiction_in_trail_proof(proof) == ""
    assert contradiction_in_trail_proof(replace(proof, tried=2)) == "more checks than were tried"
    for twice in ({"caught": ("b", "b")}, {"missed": ("c", "c")}, {"unexpected": ("b", "b")}):
        assert contradiction_in_trail_proof(replace(proof, **twice)) == "a check that is named twice"
    rules = RowRules(record())
    rules.accept(proof)
    assert rules.of_trail_proof(proof) == "more than one row of direct off"
    assert rules.of_trail_proof(replace(proof, topology="session")) == ""
    assert rules.of_trail_proof(replace(proof, topology="another")) == "the plan does not name another"


def test_outcomes_of_mutations_are_judged_at_their_boundaries() -> None:
    proof = ObservedProof(
        topology="direct",
        name="actor.null",
        what="x",
        state=MutationState.NOTICED,
        tried=1,
        check=CHECKS[0],
        at="rows",
    )
    survived = replace(proof, state=MutationState.SURVIVED, check="", at="", reason="x")
    never_met = replace(survived, state=MutationState.NEVER_MET, tried=0)
    for sound in (proof, survived, replace(survived, tried=0), never_met):
        assert contradiction_in_observed_proof(sound) == ""
    by_nobody = "a mutation that was noticed without a check, or not noticed by one"
    for wrong in ({"check": ""}, {"at": ""}, {"tried": 0}, {"state": MutationState.SURVIVED, "reason": "x"}):
        assert contradiction_in_observed_proof(replace(proof, **wrong)) == by_nobody
    reasoned = "a mutation that was noticed with a reason, or not noticed without one"
    assert contradiction_in_observed_proof(replace(proof, reason="x")) == reasoned
    assert contradiction_in_observed_proof(replace(survived, reason=" ")) == reasoned
    tried = "checks that tried a mutation that was left out or never met"
    for untried in (replace(never_met, tried=1), replace(survived, tried=-1)):
        assert contradiction_in_observed_proof(untried) == tried
    rules = RowRules(record())
    rules.accept(proof)
    assert rules.of_observed_proof(proof) == "more than one row of direct mutation actor.null"
    assert rules.of_observed_proof(replace(proof, topology="session")) == ""
    assert rules.of_observed_proof(replace(proof, name="y", check="z")) == "the plan does not name z on direct"
    assert rules.of_observed_proof(replace(survived, topology="another")) == "the plan does not name another"


# --- the record ------------------------------------------------------------------------------------------

DIRECT = record().topologies["direct"]
RECORDS: tuple[tuple[RunRecord, list[str]], ...] = (
    (record(), []),
    (record(state="running"), []),
    (replace(record(), state="failed", failure="the disk is full"), []),
    # clocks are compared with a second to spare
    (replace(record(), ended_at="2025-12-31T23:59:59.000Z"), []),
    (replace(record(), ended_at="2025-12-31T23:59:58.999Z"), ["the run ended before it started"]),
    (replace(record(state="running"), failure="x"), ["a run that is running has failed"]),
    (replace(record(), ended_at=""), ["the state finished contradicts the end (none)"]),
    (replace(record(), state="running"), [f"the state running contradicts the end {ENDED}"]),
    (replace(record(), engine="attached"), ["evidence of class CI from the engine attached"]),
    (
        replace(record(), engine="attached", evidence_class=EvidenceClass.HOST),
        [f"{CHECKS[0]} on direct is of class CI, its run is host"],
    ),
    (replace(record(), plan=(*PLAN, PLAN[-1])), ["the plan names a row twice"]),
    (
        replace(record(), topologies={"direct": replace(DIRECT, stood=False)}),
        ["the topology direct started and did not: without a reason"],
    ),
    (
        replace(record(), topologies={"direct": replace(DIRECT, reason="x")}),
        ["the topology direct started and did not: x"],
    ),
    (replace(record(), topologies={"other": DIRECT}), ["the topology other is declared as direct"]),
    (
        replace(record(), environments={"staging": EnvironmentEvidence(name="staging", reached=False)}),
        ["the environment staging was reached and was not: without a reason"],
    ),
    (
        replace(record(), environments={"staging": EnvironmentEvidence(name="staging", reached=True, reason="x")}),
        ["the environment staging was reached and was not: x"],
    ),
    (replace(record(), environments={"staging": EnvironmentEvidence(name="staging", reached=True)}), []),
)


@each_row(("written", "sentences"), RECORDS)
def test_a_record_says_what_contradicts_itself(written: RunRecord, sentences: list[str]) -> None:
    assert list(contradictions_in_record(written)) == sentences


# --- writing ---------------------------------------------------------------------------------------------


def test_a_run_is_written_with_everything_that_its_seal_covers(tmp_path: Path) -> None:
    folder = write_sealed(tmp_path)
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    rows = {"results.jsonl", "proofs.jsonl", "trail.jsonl", "observed.jsonl"}
    assert files == {"run.json", *rows, "logs/direct/postgres.log"}
    run = read_run(folder)
    assert run.integrity == Integrity(verdict=Verdict.WHOLE)
    assert (len(run.results), len(run.proofs), len(run.trail_proofs), len(run.observed_proofs)) == (9, 2, 1, 1)
    text = (folder / "run.json").read_text()
    assert text.startswith('{\n "')
    seal = json.loads(text)["seal"]
    assert seal["head"] == head_of(json.loads(text))
    assert seal["files"] == {"logs/direct/postgres.log": hashlib.sha256(b"LOG: ready\n").hexdigest()}
    (folder / "logs" / "direct" / "postgres.log").write_text("LOG: fine\n")
    assert read_run(folder).integrity.breaks == ("logs/direct/postgres.log: it was changed",)


def test_logs_and_artifacts_are_redacted_and_replaced(tmp_path: Path) -> None:
    redactor = Redactor()
    redactor.learn("hunter22")
    store = RunStore(tmp_path, record(state="running"), redactor)
    assert [path.name for path in (store.folder / "logs").iterdir()] == []
    for text in ("old", "é hunter22"):
        for service in ("postgres", "pooler"):
            store.write_log("direct", service, text)
        store.write_artifact("direct", CHECKS[0], "junit.xml", text)
    store.close()
    written = {
        str(path.relative_to(store.folder)): path.read_bytes().decode()
        for name in ("logs", "artifacts")
        for path in (store.folder / name).rglob("*.*")
        if path.is_file()
    }
    assert written.keys() == {
        "logs/direct/postgres.log",
        "logs/direct/pooler.log",
        f"artifacts/direct/{CHECKS[0]}/junit.xml",
    }
    assert {text.startswith("é ") and "hunter22" not in text for text in written.values()} == {True}


def test_the_writer_makes_no_contradiction_in_proofs(tmp_path: Path) -> None:
    proof = Proof(topology="direct", check=CHECKS[0], control="x", at="rows", proven=True, applicable=True, reason="")
    broken = TrailProof(topology="direct", name="off", what="x", tried=1, caught=("a",), missed=(), unexpected=())
    store = RunStore(tmp_path, record(state="running"), Redactor())
    with pytest.raises(ContradictionError, match="proven with a reason"):
        store.append_proof(replace(proof, reason="x"))
    with pytest.raises(ContradictionError, match="more checks than were tried"):
        store.append_trail_proof(replace(broken, tried=0))
    store.append_proof(proof)
    store.append_trail_proof(broken)
    with pytest.raises(ContradictionError, match="more than one row of direct off"):
        store.append_trail_proof(broken)
    with pytest.raises(ContradictionError, match=r"never changes: argv, plan$"):
        store.update(plan=(), argv=())
    refused = store.append_or_refuse(replace(result("direct", CHECKS[0]), expectations=(), started_at=STARTED))
    assert (refused.started_at, refused.reproduce) == (STARTED, PLAN[0].reproduce)
    store.close()
    run = read_run(store.folder)
    assert (run.results, run.proofs, run.trail_proofs) == ((refused,), (proof,), (broken,))


def test_a_time_follows_the_clock_that_nobody_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    began = seconds_of(writing._BEGAN.isoformat().replace("+00:00", "Z"))
    assert began
    monkeypatch.setattr("harness.store.writing.time.clock_gettime", lambda _clock: writing._BEGAN_S + 90.5)
    assert seconds_of(writing.utc_now()) == pytest.approx(began + 90.5, abs=0.001)
    assert re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{8}", writing.new_run_id())


def test_files_are_written_into_folders_that_are_made_for_them(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a" / "b" / "x.md", "é\n")
    assert (tmp_path / "a" / "b" / "x.md").read_bytes() == "é\n".encode()
    assert write_together(tmp_path / "c" / "d", [("y.md", ["é", "\n"])]) == [tmp_path / "c" / "d" / "y.md"]
    assert (tmp_path / "c" / "d" / "y.md").read_bytes() == "é\n".encode()
    require_writable(tmp_path / "e" / "f")
    assert list((tmp_path / "e" / "f" / "runs").iterdir()) == []
    blocked = tmp_path / "a" / "b" / "x.md" / "z"
    for write, where in (
        (lambda: write_atomically(blocked / "x.md", ""), blocked / "x.md"),
        (lambda: write_together(blocked, [("x.md", [""])]), blocked),
        (lambda: write_together(tmp_path, [("missing/x.md", [""])]), tmp_path / "missing" / "x.md"),
        (lambda: require_writable(blocked), blocked),
    ):
        with pytest.raises(StoreError) as caught:
            write()
        assert caught.value.where == str(where)
        assert caught.value.what.startswith("the evidence cannot be written: ")


# --- reading ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ("running", "the run has no result of this check (it was killed, or is still running)"),
        ("interrupted", "the run was interrupted before this check finished"),
        ("failed", "the run failed before this check finished: the disk is full"),
        ("finished", "the run ended without a result of this check"),
    ],
)
def test_a_row_without_a_result_says_why(state: str, reason: str, tmp_path: Path) -> None:
    written = replace(record(state=state), failure="the disk is full" if state == "failed" else "")
    first, second, *_ = store_run(tmp_path, [result("direct", CHECKS[0])], written).answers()
    assert first == result("direct", CHECKS[0])
    assert second == Result(
        target="direct", check=CHECKS[1], status=Status.NOT_RUN, reason=reason, reproduce=PLAN[1].reproduce
    )


def test_runs_of_a_reports_folder_are_those_of_one_code_in_the_order_of_their_start(tmp_path: Path) -> None:
    late = record("20260101T000000Z-00000001")
    early = replace(record("20260101T000000Z-00000002"), started_at=STARTED)
    for written in (late, early, record("20260101T000000Z-00000003", fingerprint="f2")):
        store_run(tmp_path, [], written)
    assert [run.record.run_id[-1] for run in kept_runs(tmp_path)[0]] == ["2", "1", "3"]
    assert [run.record.run_id[-1] for run in kept_runs(tmp_path, "f1")[0]] == ["2", "1"]
    assert [run.record.run_id[-1] for run in read_runs([tmp_path])[0]] == ["2", "1", "3"]
    # `latest` is not a run of its own, and a run that lost its record is one
    (tmp_path / "runs" / late.run_id / "run.json").unlink()
    assert [folder.name[-1] for folder in run_folders_in(tmp_path)] == ["1", "2", "3"]
    runs, damaged = kept_runs(tmp_path, "f1")
    assert [run.record.run_id[-1] for run in runs] == ["2"]
    assert damaged == (f"run {late.run_id} cannot be read: not a run folder: run.json is missing",)


def test_a_damaged_run_of_other_code_is_named_only_where_all_runs_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "20260101T000000Z-00000001"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text('{"provenance": {"fingerprint": "f2"}}\n')
    assert kept_runs(tmp_path, "f1") == ((), ())
    for fingerprint in (None, "f2"):
        runs, [damaged] = kept_runs(tmp_path, fingerprint)
        assert runs == ()
        assert damaged.startswith(f"run {folder.name} cannot be read: run.json cannot be read: ")


HASH = "0123456789abcdef" * 4


@each_row(
    ("line", "link"),
    [
        (linked(b"{}", HASH), HASH),
        (linked(b"{}", HASH)[:-1] + b"]", ""),
        (linked(b"{}", HASH).replace(b'"previous"', b'"earlier_"'), ""),
        (linked(b"{}", HASH)[1:], HASH),
        (linked(b"{}", HASH)[2:], ""),
        (linked(b"{}", HASH).replace(b"ab", "é".encode(), 1), "0123456789\ufffd\ufffd" + HASH[12:]),
        (b"{}", ""),
        (b"", ""),
    ],
)
def test_only_a_line_in_the_form_of_the_store_carries_a_link(line: bytes, link: str) -> None:
    assert link_of(line) == link


def test_a_hidden_file_is_not_a_part_of_a_run(tmp_path: Path) -> None:
    folder = sealed_run(tmp_path)
    (folder / ".DS_Store").write_text("x")
    (folder / "logs" / ".hidden").write_text("x")
    assert read_run(folder).integrity == Integrity(verdict=Verdict.WHOLE)


def test_a_run_that_is_named_first_hides_no_other(tmp_path: Path) -> None:
    one = store_run(tmp_path, [], record("20260101T000000Z-00000001"))
    two = store_run(tmp_path, [], record("20260101T000000Z-00000002"))
    assert read_runs([one.folder, tmp_path])[0] == (one, two)


def test_a_folder_without_runs_is_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    for name, what in (("file", "not a folder"), ("missing", "no such folder")):
        with pytest.raises(UsageError) as usage:
            read_runs([tmp_path / name])
        assert (usage.value.what, usage.value.where) == (what, str(tmp_path / name))
    with pytest.raises(StoreError) as empty:
        read_runs([tmp_path / "empty"])
    assert (empty.value.what, empty.value.where, empty.value.hint) == (
        "no run folder here: no run.json at any depth",
        str(tmp_path / "empty"),
        "harness verify makes one",
    )


def test_refused_rows_are_named_once_for_each_cause_with_their_number(tmp_path: Path) -> None:
    run = store_run(tmp_path, mixed())
    path = run.folder / "results.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join((*lines, b"{}\n" * 25, b"{\n", *lines[:2])))
    integrity = read_run(run.folder).integrity
    number = len(lines)
    assert (len(integrity.refused), integrity.refusals) == (2, 25 + 1 + 2 * 2)
    assert re.fullmatch(rf"results.jsonl:{number + 1}: not a row: .* \(and 25 more rows\)", integrity.reasons[-2])
    # neither of two rows counts
    twice = rf"results.jsonl:{number + 27}: more than one row of .* \(and 3 more rows\)"
    assert re.fullmatch(twice, integrity.reasons[-1])


def test_files_that_changed_in_the_same_way_are_named_once(tmp_path: Path) -> None:
    run = store_run(tmp_path, mixed())
    (run.folder / "logs").mkdir(exist_ok=True)
    for number in range(30):
        (run.folder / "logs" / f"a{number:02}.log").touch()
    assert read_run(run.folder).integrity.reasons == ("logs/a00.log: it was added (and 29 more files)",)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * (2 << 20))
    with regular_file(path, 2 << 20) as file:
        assert len(file.read()) == 2 << 20
    with pytest.raises(StoreError, match="larger than 1 MB"), regular_file(path, (2 << 20) - 1):
        pass
    assert sha256_of(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert sha256_of(tmp_path) == sha256_of(tmp_path / "missing") == ""


@pytest.mark.parametrize(("number", "hint"), [(28, "free some space, or "), (122, "free some space, or "), (13, "")])
def test_only_a_full_disk_is_called_full(number: int, hint: str, tmp_path: Path) -> None:
    error = cannot_write(tmp_path, OSError(number, "the text of the system"))
    assert error.what == "the evidence cannot be written: the text of the system"
    assert error.where == str(tmp_path)
    assert error.hint == f"{hint}name another folder with --reports DIR"
    assert cannot_write(tmp_path, OSError("only a text")).what == "the evidence cannot be written: only a text"


def test_a_statement_needs_a_whole_run_and_its_own_type(tmp_path: Path) -> None:
    with pytest.raises(StoreError) as none:
        statement_of([])
    assert (none.value.what, none.value.hint) == ("a statement needs at least one run", "harness verify makes one")
    folder = sealed_run(tmp_path)
    run = read_run(folder)
    text = statement_of([run])
    assert text.startswith('{\n "_type": ')
    path = tmp_path / "statement.json"
    hint = "harness report --write-statement FILE writes one"
    for content, what, expected_hint in (
        (
            text.replace("run-evidence:v1", "x" * 300),
            f"found a statement of type 'urn:pooler-harness:{'x' * 81}', expected urn:pooler-harness:run-evidence:v1",
            "",
        ),
        ("{", "not a statement about runs: Input data was truncated", hint),
        (None, "the statement cannot be read: No such file or directory", hint),
    ):
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_text(content)
        with pytest.raises(ConfigError) as caught:
            compare(path, [run])
        assert (caught.value.what, caught.value.where, caught.value.hint) == (what, str(path), expected_hint)
    with pytest.raises(ConfigError) as other:
        compare(tmp_path, [run])
    assert (other.value.what, other.value.where) == (
        "found another type of file, expected a regular file",
        str(tmp_path),
    )
    (folder / "logs" / "direct" / "postgres.log").unlink()
    with pytest.raises(StoreError) as edited:
        statement_of([read_run(folder)])
    assert edited.value.what == "the run was edited: logs/direct/postgres.log: it was removed"
    assert edited.value.where == str(folder)
    assert edited.value.hint == "harness report --verify names all differences; leave out this folder"
