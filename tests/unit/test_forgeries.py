"""Forgeries of stored runs: each is noticed, and what only a signature shows is compared with a statement."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from msgspec.structs import replace

from harness import places
from harness.cli.evidence import evidence_from, expected_rows
from harness.cli.exit_codes import ExitCode
from harness.cli.main import main
from harness.cli.settings import read_settings
from harness.model import Status
from harness.provenance import provenance
from harness.redaction import Redactor
from harness.store import PREDICATE_TYPE, Integrity, RunStore, Verdict, compare, read_run, statement_of
from harness.store.chain import ROW_FILES, Seal, digest_of_record
from harness.store.rules import ContradictionError
from tests.unit.forging import (
    chain_again,
    change_lines,
    change_record,
    change_row,
    invent_row,
    sealed_run,
)
from tests.unit.made_up import planned, record, result, store_run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KNOWN = {"check": "actor.many-clients", "link": "https://example.org/9", "owner": "eve", "expires": "2099-01-01"}
NOT_HELD = [{"name": "rows", "expected": "1", "observed": "0", "held": False}]
HELD = [{"name": "rows", "expected": "1", "observed": "1", "held": True}]
#: a row that the plan names, and that has no result
MISSING = {"topology": "transaction", "check": "capture.coverage", "status": "OK", "expectations": HELD}
LAST = 9


def row(number: int, **fields: Any) -> Callable[[Path], None]:
    return lambda folder: change_row(folder, number, **fields)


def proof(number: int, **fields: Any) -> Callable[[Path], None]:
    return lambda folder: change_row(folder, number, file="proofs.jsonl", **fields)


def trail(**fields: Any) -> Callable[[Path], None]:
    return lambda folder: change_row(folder, 1, file="trail.jsonl", **fields)


def observed(**fields: Any) -> Callable[[Path], None]:
    return lambda folder: change_row(folder, 1, file="observed.jsonl", **fields)


def value(*keys: str | int, to: Any) -> Callable[[Path], None]:
    return lambda folder: change_record(folder, *keys, value=to)


def invent(**fields: Any) -> Callable[[Path], None]:
    return lambda folder: invent_row(folder, MISSING | fields)


def order(*numbers: int, file: str = "results.jsonl") -> Callable[[Path], None]:
    return lambda folder: change_lines(folder, list(numbers), file=file)


def text(name: str, content: str | None) -> Callable[[Path], None]:
    """Write a file of the run, or remove it."""

    def change(folder: Path) -> None:
        path = folder / name
        if content is None:
            path.unlink()
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)

    return change


def invented(count: int) -> Callable[[Path], None]:
    """Add rows with the right links that no run made, and plan them."""

    def change(folder: Path) -> None:
        raw = msgspec.json.decode((folder / "run.json").read_bytes())
        names = [f"capture.invented-{number}" for number in range(count)]
        plan = [*raw["plan"], *(raw["plan"][0] | {"check": name} for name in names)]
        change_record(folder, "plan", value=plan)
        for name in names:
            invent_row(folder, MISSING | {"topology": "direct", "check": name})

    return change


def shorter_plan(folder: Path) -> None:
    raw = msgspec.json.decode((folder / "run.json").read_bytes())
    change_record(folder, "plan", value=raw["plan"][:-2])


def without_seal(folder: Path) -> None:
    raw = msgspec.json.decode((folder / "run.json").read_bytes())
    del raw["seal"]
    (folder / "run.json").write_bytes(msgspec.json.encode(raw))


def blanks(folder: Path) -> None:
    path = folder / "results.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"status":', b'"status": ', 1))


def crlf(folder: Path) -> None:
    path = folder / "results.jsonl"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))


#: name, edit of a sealed run whose hashes stay, the first break
EDITS: tuple[tuple[str, Callable[[Path], None], str], ...] = (
    # those that were found by hand
    ("an Issue becomes OK, its expectation stays", row(5, status="OK", reason=""), "results.jsonl:6: "),
    (
        "an Issue becomes OK with all that belongs to it",
        row(5, status="OK", reason="", expectations=HELD),
        "results.jsonl:6: ",
    ),
    ("an Issue becomes N/A without a reason", row(5, status="N/A", reason=""), "results.jsonl:6: "),
    ("an Issue becomes Not run with another reason", row(5, status="Not run", reason="slow"), "results.jsonl:6: "),
    ("474 rows are invented", invented(474), "run.json: it does not have the digest"),
    ("a row is invented for an empty place", invent(), "results.jsonl:10: it has 10 lines, expected 9"),
    ("an Issue row is removed", order(1, 2, 3, 4, 6, 7, 8, 9), "results.jsonl:5: it does not follow from line 4"),
    ("two rows are swapped", order(2, 1, 3, 4, 5, 6, 7, 8, 9), "results.jsonl:1: it does not follow from the plan"),
    ("a fingerprint becomes that of other code", value("provenance", "fingerprint", to="f2"), "run.json: "),
    (
        "a declaration of a topology changes",
        value("topologies", "session", "declared", "summary", to="x"),
        "run.json: ",
    ),
    (
        "a pool size of the declaration changes",
        value("topologies", "session", "declared", "pooler", "default_pool_size", to=9),
        "run.json: ",
    ),
    ("the server's version changes", value("topologies", "direct", "services", 0, "version", to="18.0"), "run.json: "),
    ("a start is earlier", row(2, started_at="2026-01-01T00:00:00.500Z"), "results.jsonl:3: "),
    (
        "the log of a server changes",
        text("logs/direct/postgres.log", "LOG: fine\n"),
        "logs/direct/postgres.log: it was changed",
    ),
    ("a known entry is invented", row(5, known=KNOWN), "results.jsonl:6: "),
    ("the plan is shorter", shorter_plan, "run.json: it does not have the digest"),
    ("host evidence becomes CI", value("evidence_class", to="host"), "run.json: it does not have the digest"),
    # more
    (
        "an outcome becomes another word",
        row(LAST, feature={"observed": {"behaviour": "works"}, "expected": [{"behaviour": "lost"}]}),
        "results.jsonl:9: the last line was changed",
    ),
    ("a severity is lowered", row(5, severity="P2"), "results.jsonl:6: "),
    ("a severity of the plan is lowered", value("plan", 1, "severity", to="P2"), "run.json: "),
    ("a claim is wider", value("plan", 1, "claim", to="everything is fine"), "run.json: "),
    ("a reproduce command changes", row(1, reproduce="true"), "results.jsonl:2: "),
    ("an observed value changes", row(4, expectations=[NOT_HELD[0] | {"observed": "2"}]), "results.jsonl:5: "),
    ("a reason is milder", row(4, reason="rows: a little late"), "results.jsonl:5: "),
    ("a fact is added", row(1, facts={"audit transaction": "7"}), "results.jsonl:2: "),
    ("pids of a share are added", row(1, probes=[{"how": "x", "first_pid": 1, "second_pid": 1}]), "results.jsonl:2: "),
    ("a limit is removed", row(2, limit=None), "results.jsonl:3: "),
    ("a duration changes", row(1, duration_ms=1.0), "results.jsonl:2: "),
    ("the last row changes", row(LAST, facts={"x": "y"}), "results.jsonl:9: the last line was changed"),
    ("the last row is removed", order(1, 2, 3, 4, 5, 6, 7, 8), "results.jsonl:8: it has 8 lines, expected 9"),
    ("the first row is removed", order(2, 3, 4, 5, 6, 7, 8, 9), "results.jsonl:1: it does not follow from the plan"),
    ("all rows are removed", order(), "results.jsonl:0: it has 0 lines, expected 9"),
    ("a row is there twice", order(1, 1, 2, 3, 4, 5, 6, 7, 8, 9), "results.jsonl:2: "),
    ("the file of rows is removed", text("results.jsonl", None), "results.jsonl: it is missing"),
    ("blanks are added", blanks, "results.jsonl:2: "),
    ("line ends change", crlf, "results.jsonl:1: "),
    (
        "an unproven control becomes proven",
        proof(2, proven=True, reason=""),
        "proofs.jsonl:2: the last line was changed",
    ),
    ("a proof is removed", order(1, file="proofs.jsonl"), "proofs.jsonl:1: it has 1 lines, expected 2"),
    ("a mutation is noticed elsewhere", observed(at="x"), "observed.jsonl:1: the last line was changed"),
    ("a missed check is removed", trail(stayed=[]), "trail.jsonl:1: the last line was changed"),
    ("the file of proofs is removed", text("proofs.jsonl", None), "proofs.jsonl: it is missing"),
    ("a log is removed", text("logs/direct/postgres.log", None), "logs/direct/postgres.log: it was removed"),
    ("a log is added", text("logs/session/pooler.log", "fine"), "logs/session/pooler.log: it was added"),
    ("an artifact is added", text("artifacts/direct/x.xml", "<x/>"), "artifacts/direct/x.xml: it was added"),
    ("a topology did not start", value("topologies", "direct", "stood", to=False), "run.json: "),
    (
        "a setting of a server changes",
        value("topologies", "session", "services", 1, "settings", "pool_mode", to="session "),
        "run.json: ",
    ),
    ("a failed run is finished", value("state", to="interrupted"), "run.json: "),
    ("a finished run is running", value("state", to="running"), "run.json: "),
    ("a failure is added", value("failure", to="x"), "run.json: "),
    ("the end is later", value("ended_at", to="2026-01-02T00:00:00.000Z"), "run.json: "),
    ("the start is earlier", value("started_at", to="2025-01-01T00:00:00.000Z"), "run.json: "),
    ("the commit is another", value("provenance", "commit", to="d" * 40), "run.json: "),
    ("a dirty checkout is clean", value("provenance", "dirty", to=True), "run.json: "),
    ("the audit target is another", value("audit_target", to="mine"), "run.json: "),
    ("the engine is another", value("engine", to="native"), "run.json: "),
    ("the command line is another", value("argv", to=["harness"]), "run.json: "),
    ("a run under a control becomes evidence", value("under", to="x"), "run.json: "),
    ("an unknown field is added", value("approved", to=True), "run.json: "),
    ("the seal is removed", without_seal, "run.json: the seal is missing"),
    ("the seal is open", value("seal", "closed", to=False), "run.json: "),
    ("a count of the seal changes", value("seal", "rows", "results.jsonl", "lines", to=8), "run.json: "),
    ("a digest of the seal changes", value("seal", "files", to={}), "run.json: "),
    ("the schema version is older", value("schema_version", to=1), "run.json: schema version 1 has no seal"),
)


@pytest.mark.parametrize(("name", "edit", "first"), EDITS, ids=[name for name, _, _ in EDITS])
def test_an_edit_is_noticed_at_its_place(name: str, edit: Callable[[Path], None], first: str, tmp_path: Path) -> None:
    folder = sealed_run(tmp_path)
    assert read_run(folder).integrity.verdict is Verdict.WHOLE
    edit(folder)
    integrity = read_run(folder).integrity
    assert integrity.verdict is Verdict.EDITED
    assert integrity.breaks[0].startswith(first), name


#: name, edit of a run whose hashes are all computed again, what the rules say
CONTRADICTIONS: tuple[tuple[str, Callable[[Path], None], str], ...] = (
    (
        "OK with a broken expectation",
        row(5, status="OK", reason=""),
        "results.jsonl:5: OK although an expectation did not hold",
    ),
    ("OK without an expectation", row(1, expectations=[]), "results.jsonl:1: OK without an expectation"),
    ("OK with a reason", row(1, reason="it was an Issue"), "results.jsonl:1: OK with a reason"),
    ("Issue without a reason", row(5, reason=""), "results.jsonl:5: a status other than OK without a reason"),
    ("N/A without a reason", row(3, reason=""), "results.jsonl:3: a status other than OK without a reason"),
    ("Not run without a reason", row(6, reason=" "), "results.jsonl:6: a status other than OK without a reason"),
    ("Not run with a broken expectation", row(5, status="Not run"), "results.jsonl:5: Not run although an expectation"),
    (
        "N/A with a broken expectation",
        row(5, status="N/A"),
        "results.jsonl:5: N/A although an expectation did not hold",
    ),
    (
        "N/A with an expectation that does not count",
        row(3, expectations=[HELD[0] | {"counts": False}]),
        "results.jsonl:3: an expectation that does not count in a check that ran to its end",
    ),
    (
        "Issue although all held",
        row(5, expectations=HELD),
        "results.jsonl:5: Issue without an expectation that did not",
    ),
    (
        "OK that does not count",
        row(1, expectations=[HELD[0] | {"counts": False}]),
        "results.jsonl:1: OK with an expectation that does",
    ),
    ("OK that ended early", row(1, ended_by="time limit"), "results.jsonl:1: a check that ended early is OK"),
    ("an unknown status", row(1, status="Fine"), "results.jsonl:1: not a row: Invalid enum value 'Fine'"),
    ("known on OK", row(1, known=KNOWN), "results.jsonl:1: a known Issue on a row that is not an Issue"),
    ("known of another check", row(4, known=KNOWN), "results.jsonl:4: a known Issue of another check"),
    (
        "known in another topology",
        row(5, known=KNOWN | {"topologies": ["direct"]}),
        "results.jsonl:5: a known Issue of another",
    ),
    ("a severity on OK", row(1, severity="P0"), "results.jsonl:1: a severity on a row that is not an Issue"),
    ("a limit on N/A", row(3, limit={"outcome": "x", "source": "y"}), "results.jsonl:3: a documented limit"),
    (
        "an outcome beside its expectation",
        row(LAST, feature={"observed": {"behaviour": "works"}, "expected": [{"behaviour": "works"}]}),
        "results.jsonl:9: an outcome that no expectation observed",
    ),
    (
        "an outcome without an expected one",
        row(LAST, feature={"observed": {"behaviour": "lost"}, "expected": []}),
        "results.jsonl:9: an expected outcome is missing",
    ),
    (
        "an outcome on a row that is no probe",
        row(
            1,
            expectations=[HELD[0] | {"observed": "works"}],
            feature={"observed": {"behaviour": "works"}, "expected": [{"behaviour": "works"}]},
        ),
        "results.jsonl:1: an outcome on a row that fills none",
    ),
    (
        "a row that the plan does not name",
        row(1, check="capture.invented"),
        "results.jsonl:1: a row that the plan does not name",
    ),
    (
        "a row twice",
        order(1, 2, 3, 4, 5, 6, 7, 8, 9, 5),
        "results.jsonl:10: more than one row of session actor.many-clients",
    ),
    (
        "a start before the run",
        row(1, started_at="2025-12-31T23:59:00.000Z"),
        "results.jsonl:1: it started before its run",
    ),
    ("an end after the run", row(1, duration_ms=60_000.0), "results.jsonl:1: it ended after its run"),
    ("a start that is not a time", row(1, started_at="yesterday"), "results.jsonl:1: a start that is not a UTC time"),
    (
        "a start in another zone",
        row(1, started_at="2026-01-01T02:00:01.000+02:00"),
        "results.jsonl:1: a start that is not a UTC",
    ),
    (
        "a start without a zone",
        row(1, started_at="2026-01-01T00:00:01.000"),
        "results.jsonl:1: a start that is not a UTC time",
    ),
    (
        "a start on a day that does not exist",
        row(1, started_at="2026-02-30T00:00:01Z"),
        "results.jsonl:1: a start that is not",
    ),
    ("a negative duration", row(1, duration_ms=-1.0), "results.jsonl:1: a duration that no check has"),
    ("a duration of years", row(1, started_at="", duration_ms=1e12), "results.jsonl:1: a duration that no check has"),
    (
        "OK on a topology that did not start",
        value(
            "topologies",
            "direct",
            to={
                "declared": {"name": "direct", "summary": "x", "postgres": {"version": "17"}},
                "stood": False,
                "reason": "it did not",
            },
        ),
        "results.jsonl:1: OK on direct, which did not start",
    ),
    ("proven with a reason", proof(2, proven=True), "proofs.jsonl:2: proven with a reason why it is not"),
    ("not proven without a reason", proof(2, reason=""), "proofs.jsonl:2: not proven without a reason"),
    ("proven and not applicable", proof(1, applicable=False), "proofs.jsonl:1: proven although it does not apply"),
    ("proven elsewhere", proof(1, at="another"), "proofs.jsonl:1: proven although the named expectation held"),
    ("a broken expectation that held", proof(1, broken=HELD), "proofs.jsonl:1: a broken expectation that held"),
    (
        "a proof twice",
        order(1, 2, 1, file="proofs.jsonl"),
        "proofs.jsonl:3: more than one row of direct capture.insert",
    ),
    (
        "a proof of a check that is not planned",
        proof(1, check="x"),
        "proofs.jsonl:1: the plan does not name x on direct",
    ),
    ("turned and stayed", trail(stayed=["capture.insert"]), "trail.jsonl:1: a check that both turned and stayed"),
    ("unexpected and not turned", trail(beside=["x"]), "trail.jsonl:1: an unexpected check that did not turn"),
    ("more than were tried", trail(tried=1), "trail.jsonl:1: more checks than were tried"),
    ("a check of a break twice", trail(turned=["a", "a"]), "trail.jsonl:1: a check that is named twice"),
    ("a break of another topology", trail(topology="x"), "trail.jsonl:1: the plan does not name x"),
    ("noticed by nobody", observed(check=""), "observed.jsonl:1: a mutation that was noticed without a check, or not noticed by one"),
    ("survived and noticed", observed(state="survived"), "observed.jsonl:1: a mutation that was noticed without a check, or not noticed by one"),
    ("a mutation of another topology", observed(topology="x"), "observed.jsonl:1: the plan does not name x"),
    (
        "an end before the start",
        value("ended_at", to="2025-01-01T00:00:00.000Z"),
        "run.json: the run ended before it started",
    ),
    ("running with an end", value("state", to="running"), "run.json: the state running contradicts the end"),
    ("finished without an end", value("ended_at", to=""), "run.json: the state finished contradicts the end (none)"),
    (
        "host evidence from an engine",
        value("evidence_class", to="host"),
        "run.json: evidence of class host from the engine docker",
    ),
    (
        "one row of host evidence",
        value("plan", 0, "evidence_class", to="host"),
        "run.json: capture.insert on direct is of class host",
    ),
    (
        "a topology under another name",
        value("topologies", "direct", "declared", "name", to="x"),
        "run.json: the topology direct is declared as x",
    ),
    (
        "a topology that started and did not",
        value("topologies", "direct", "reason", to="x"),
        "run.json: the topology direct started and did not",
    ),
)


@pytest.mark.parametrize(("name", "edit", "sentence"), CONTRADICTIONS, ids=[name for name, _, _ in CONTRADICTIONS])
def test_a_contradiction_is_refused_also_when_the_chain_is_right(
    name: str, edit: Callable[[Path], None], sentence: str, tmp_path: Path
) -> None:
    folder = sealed_run(tmp_path)
    edit(folder)
    chain_again(folder)
    run = read_run(folder)
    assert run.integrity.verdict is Verdict.EDITED, name
    assert run.integrity.reasons[0].startswith(sentence)
    if not run.integrity.breaks:  # the other rows count
        lines = sum(len((folder / name).read_bytes().splitlines()) for name in ROW_FILES)
        kept = (run.results, run.proofs, run.trail_proofs, run.observed_proofs)
        assert sum(map(len, kept)) == lines - run.integrity.refusals


#: plausible edits with all hashes computed again: only a signed statement shows them
PLAUSIBLE: tuple[tuple[str, Callable[[Path], None]], ...] = (
    ("an Issue becomes OK with all that belongs to it", row(5, status="OK", reason="", expectations=HELD)),
    ("a row is invented for an empty place", invent()),
    ("474 rows are invented", invented(474)),
    ("an Issue row is removed", order(1, 2, 3, 4, 6, 7, 8, 9)),
    ("the server's version changes", value("topologies", "direct", "services", 0, "version", to="18.0")),
    ("a log changes", text("logs/direct/postgres.log", "fine")),
    ("a severity is lowered", row(5, severity="P2")),
)


@pytest.mark.parametrize(("name", "edit"), PLAUSIBLE, ids=[name for name, _ in PLAUSIBLE])
def test_what_the_chain_cannot_show_differs_from_the_statement(
    name: str, edit: Callable[[Path], None], tmp_path: Path
) -> None:
    folder = sealed_run(tmp_path)
    statement = tmp_path / "statement.json"
    statement.write_text(statement_of([read_run(folder)]))
    assert compare(statement, [read_run(folder)]) == ()
    edit(folder)
    chain_again(folder)
    run = read_run(folder)
    assert run.integrity.verdict is Verdict.WHOLE, name
    assert f"{folder.name}/run.json: it differs from the statement" in compare(statement, [run])


def test_a_statement_has_the_form_of_in_toto(tmp_path: Path) -> None:
    """The format is https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md."""
    folder = sealed_run(tmp_path)
    run = read_run(folder)
    statement = json.loads(statement_of([run, run]))  # a run that was copied counts once
    assert list(statement) == ["_type", "subject", "predicateType", "predicate"]
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["subject"] == [
        {
            "name": f"{folder.name}/{name}",
            "digest": {"sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest()},
        }
        for name in ("run.json", "results.jsonl")
    ]
    assert statement["predicateType"] == PREDICATE_TYPE
    [summary] = statement["predicate"]["runs"]
    assert summary["integrity"] == "whole"
    assert summary["rows"] == {"OK": 5, "N/A": 1, "Issue": 2, "Not run": 2}


def test_the_workflow_and_the_document_name_the_type_of_the_predicate() -> None:
    for name in (".github/workflows/ci.yml", "docs/evidence.md"):
        assert PREDICATE_TYPE in (places.PACKAGE.parent / name).read_text(), name


def test_a_removed_and_an_added_run_differ_from_the_statement(tmp_path: Path) -> None:
    folder = sealed_run(tmp_path)
    statement = tmp_path / "statement.json"
    statement.write_text(statement_of([read_run(folder)]))
    assert compare(statement, []) == (
        f"{folder.name}/results.jsonl: it is in the statement, and missing here",
        f"{folder.name}/run.json: it is in the statement, and missing here",
    )
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    change_record(other, "run_id", value="20260101T000000Z-bbbbbbbb")
    chain_again(other)
    added = compare(statement, [read_run(folder), read_run(other)])
    assert [sentence.partition(": ")[2] for sentence in added] == ["it is not in the statement"] * 2


def test_a_statement_about_an_edited_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = sealed_run(tmp_path)
    change_row(folder, 5, status="OK", reason="")
    assert main(["report", "--write-statement", str(tmp_path / "s.json"), "--from", str(folder)]) != ExitCode.OK
    assert "the run was edited: results.jsonl:6: " in capsys.readouterr().err
    assert not (tmp_path / "s.json").exists()


def test_verifying_prints_one_line_for_each_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = sealed_run(tmp_path)
    arguments = ["report", "--verify", "--from", str(tmp_path)]
    assert main(arguments) == ExitCode.OK
    assert capsys.readouterr().out == f"whole        {folder.name}  13 rows\n"
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "run.json").write_text("{")
    change_row(folder, 5, status="OK", reason="")
    assert main(arguments) == ExitCode.ISSUE
    edited, refused, unreadable = capsys.readouterr().out.splitlines()
    assert edited.startswith(f"edited       {folder.name}  12 rows; results.jsonl:6: it does not follow from line 5")
    assert refused.split() == ["results.jsonl:5:", "OK", "although", "an", "expectation", "did", "not", "hold"]
    assert unreadable.startswith("unreadable   run damaged cannot be read")


def test_a_report_names_an_edited_run_and_leaves_it_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = sealed_run(tmp_path)
    change_row(folder, 5, status="OK", reason="", expectations=HELD)
    reports = tmp_path / "out"
    assert main(["report", "--from", str(folder), "--reports", str(reports)]) == ExitCode.ISSUE
    sentence = (
        f"run {folder.name} was edited, so none of its rows counts (10 planned): results.jsonl:6: it does not follow"
    )
    assert sentence in capsys.readouterr().err
    for name in ("report.md", "report.html", "report.json", "issues.md"):
        assert sentence in (reports / name).read_text(), name
    report = msgspec.json.decode((reports / "report.json").read_bytes())
    assert sentence in report["edited"][0]
    assert {row["status"] for rows in report["rows"].values() for row in rows.values()} == {"Not run"}


def test_the_code_at_hand_does_not_accept_what_it_cannot_have_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = sealed_run(tmp_path)
    change_record(folder, "provenance", value=msgspec.to_builtins(provenance()))
    change_record(folder, "plan", 0, "claim", value="everything is fine")
    chain_again(folder)
    assert read_run(folder).integrity.verdict is Verdict.WHOLE
    assert main(["report", "--from", str(folder), "--reports", str(tmp_path / "out")]) == ExitCode.ISSUE
    assert "run.json: the claim of capture.insert differs from that of the check" in capsys.readouterr().err


def test_the_plan_of_this_code_is_no_edit(tmp_path: Path) -> None:
    plan = expected_rows(read_settings())
    store_run(tmp_path, [], replace(record(), plan=plan, provenance=provenance()))
    assert evidence_from(read_settings(), [str(tmp_path)]).edited == ()


def test_an_edit_that_hides_an_issue_brings_no_older_ok_back(tmp_path: Path) -> None:
    plan = tuple(planned for planned in expected_rows(read_settings()) if planned.target == "direct")
    before = replace(record(), plan=plan, provenance=provenance(), audit_target=read_settings().target.identity)
    after = replace(before, run_id="20260102T000000Z-bbbbbbbb", started_at="2026-01-01T00:00:05.000Z")
    store_run(tmp_path, [result("direct", check) for check in ("capture.insert", "capture.update")], before)
    hidden = store_run(tmp_path, [result("direct", "capture.insert", Status.ISSUE, "rows")], after)

    chosen = ("capture.insert", "capture.update")

    def statuses() -> dict[str, Status]:
        evidence = evidence_from(read_settings(), [str(tmp_path)])
        return {row.planned.check: row.status for row in evidence.of("direct") if row.planned.check in chosen}

    assert statuses() == {"capture.insert": Status.ISSUE, "capture.update": Status.OK}
    change_lines(hidden.folder, [])
    assert statuses() == {"capture.insert": Status.NOT_RUN, "capture.update": Status.NOT_RUN}


KILLED = """
import os, sys
from pathlib import Path
from harness.redaction import Redactor
from harness.store import RunStore
from tests.unit.made_up import mixed, record
store = RunStore(Path(sys.argv[1]), record(state="running"), Redactor())
for row in mixed()[:3]:
    store.append(row)
store._files["results.jsonl"]._file.write(b'{"topology":"dir')
os.kill(os.getpid(), 9)
"""


def test_a_killed_run_is_unfinished_and_its_complete_rows_count(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False, cwd=places.SHIPPED)
    assert ended.returncode == -signal.SIGKILL
    folder = (tmp_path / "runs" / "latest").resolve()
    run = read_run(folder)
    assert (run.integrity.verdict, run.torn, len(run.results)) == (Verdict.UNFINISHED, 1, 3)
    change_record(folder, "topologies", "direct", "services", 0, "version", value="18.0")
    assert read_run(folder).integrity.verdict is Verdict.EDITED


def test_rows_of_many_threads_are_chained_in_the_order_of_the_file(tmp_path: Path) -> None:
    names = [f"capture.check-{number}" for number in range(300)]
    written = replace(record(state="running"), plan=tuple(planned("direct", name) for name in names))
    store = RunStore(tmp_path, written, Redactor())
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: store.append(result("direct", name)), names))
    store.update(state="finished", ended_at="2026-01-01T00:00:09.000Z")
    store.close()
    run = read_run(store.folder)
    assert run.integrity == Integrity(verdict=Verdict.WHOLE)
    assert {row.check for row in run.results} == set(names)


def test_the_writer_makes_no_contradiction(tmp_path: Path) -> None:
    with contextlib.closing(RunStore(tmp_path, record(), Redactor())) as store:
        for row in (
            result("direct", "capture.insert", Status.NA),
            replace(result("direct", "capture.insert"), expectations=()),
            result("direct", "capture.other"),
        ):
            with pytest.raises(ContradictionError):
                store.append(row)
        with pytest.raises(ContradictionError, match="never changes: plan"):
            store.update(plan=())
    assert read_run(store.folder).integrity == Integrity(verdict=Verdict.WHOLE)


def test_a_result_that_contradicts_itself_is_not_run_and_the_run_goes_on(tmp_path: Path) -> None:
    with contextlib.closing(RunStore(tmp_path, record(), Redactor())) as store:
        refused = store.append_or_refuse(replace(result("direct", "capture.insert"), expectations=()))
        assert refused.status is Status.NOT_RUN
        assert refused.reason == "the harness made a result that contradicts itself: OK without an expectation"
    run = read_run(store.folder)
    assert run.results == (refused,)
    assert run.integrity == Integrity(verdict=Verdict.WHOLE)


def test_a_run_from_before_mutations_has_no_file_of_their_outcomes(tmp_path: Path) -> None:
    folder = sealed_run(tmp_path)
    (folder / "observed.jsonl").unlink()
    assert read_run(folder).integrity.breaks == ("observed.jsonl: it is missing",)
    record = json.loads((folder / "run.json").read_text())
    seal = msgspec.convert(record["seal"], Seal)
    older = replace(seal, rows={name: end for name, end in seal.rows.items() if name != "observed.jsonl"})
    record["seal"] = msgspec.to_builtins(replace(older, record=digest_of_record(record, older)))
    (folder / "run.json").write_text(json.dumps(record))
    run = read_run(folder)
    assert (run.integrity.verdict, run.observed_proofs) == (Verdict.WHOLE, ())
