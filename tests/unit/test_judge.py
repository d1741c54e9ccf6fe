"""`harness judge`: stored histories are judged again, and a result that differs from the stored row is named."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from harness.checks.collection import Catalogue
from harness.checks.judges import REPLACED_JUDGE
from harness.checks.registry import Control
from harness.checks.rejudging import Judgement, judged_again
from harness.cli import judge as judge_module
from harness.cli import run_evidence
from harness.cli.exit_codes import ExitCode
from harness.cli.main import main
from harness.model import Expectation, Result, Status
from harness.model.history import Sample
from harness.redaction import Redactor
from harness.store import RunStore, history_files, read_history, read_run, read_state
from tests.unit.histories import JUDGE, LOST, Present, everything, fault, operations, write_history
from tests.unit.made_up import CHECKS, planned, record, result

if TYPE_CHECKING:
    from harness.store import StoredRun

CHECK = CHECKS[0]
RUN = "20260101T000000Z-aaaaaaa1"
RECORDS = [*operations(10, outcomes={3: "fail", 7: "unknown"}), *fault(1, "server-killed", 0.1, 0.3, 0.35)]
#: without the failed write, and with the unknown one
WHOLE = Present(tuple(key for number, key in enumerate(everything(10).present) if number != 3))
LOSING = Present(WHOLE.present[1:])


def row(topology: str, expectations: tuple[Expectation, ...]) -> Result:
    broken = next((one for one in expectations if not one.held), None)
    status = Status.ISSUE if broken else Status.OK
    reason = f"{broken.name}: expected {broken.expected}, observed {broken.observed}" if broken else ""
    return replace(result(topology, CHECK, status, reason), expectations=expectations)


def expectations_of(path: Path) -> tuple[Expectation, ...]:
    return JUDGE.judge(read_history(path), read_state(path, Present))


class Kept:
    """A run that is being stored: one check on each topology, with its history."""

    def __init__(self, reports: Path, *, state: str = "finished") -> None:
        plan = tuple(planned(topology, CHECK) for topology in ("direct", "session", "transaction"))
        self.store = RunStore(reports, replace(record(RUN, state=state), plan=plan), Redactor())

    def judged(self, topology: str, state: Present, *more: Expectation) -> Path:
        """Store a history and the row that its judge makes of it."""
        path = write_history(self.store.folder, topology, CHECK, RECORDS, state)
        self.store.append(row(topology, (*more, *expectations_of(path))))
        return path

    def read(self) -> StoredRun:
        self.store.close()
        return read_run(self.store.folder)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kept:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(judge_module, "JUDGES", (JUDGE,))
    return Kept(tmp_path / "reports")


def test_what_holds_is_judged_as_it_was_stored(kept: Kept, capsys: pytest.CaptureFixture[str]) -> None:
    own = Expectation(name="writers that made progress", expected="2", observed="2", held=True)
    kept.judged("transaction", WHOLE, own)
    kept.read()
    assert main(["judge"]) == ExitCode.OK
    assert capsys.readouterr().out.splitlines() == [
        f"transaction  holds        {CHECK}; operations: 8 acknowledged, 1 failed, 1 unknown; 1 fault",
        "1 history: 1 holds",
    ]


def test_an_issue_is_printed_with_its_expectation(kept: Kept, capsys: pytest.CaptureFixture[str]) -> None:
    kept.judged("direct", WHOLE)
    kept.judged("session", LOSING)
    kept.read()
    assert main(["judge", RUN]) == ExitCode.ISSUE
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("direct   holds ")
    assert lines[1].startswith("session  Issue ")
    assert lines[2] == f"    {LOST}: expected [], observed [[0,1]]"
    assert lines[3] == "2 histories: 1 holds, 1 Issue"
    assert main(["judge", "--topology", "direct"]) == ExitCode.OK


@pytest.mark.parametrize("kind", ["known_issues", "quarantine"])
def test_an_accepted_issue_does_not_count(kept: Kept, tmp_path: Path, kind: str) -> None:
    kept.judged("session", LOSING)
    kept.read()
    (tmp_path / "harness.toml").write_text(
        f'[[{kind}]]\ncheck = "{CHECK}"\nlink = "https://example.org/1"\nowner = "ada"\nexpires = "2099-01-01"\n'
    )
    assert main(["judge"]) == ExitCode.OK
    (tmp_path / "harness.toml").unlink()
    assert main(["judge"]) == ExitCode.ISSUE


@pytest.mark.parametrize(("stored", "now"), [(WHOLE, LOSING), (LOSING, WHOLE)], ids=["worse", "better"])
def test_a_judge_that_differs_from_the_stored_row_is_named(
    kept: Kept, capsys: pytest.CaptureFixture[str], stored: Present, now: Present
) -> None:
    """The seal is written after the change, so that it does not give the change away."""
    path = kept.judged("direct", stored)
    write_history(kept.store.folder, "direct", CHECK, RECORDS, now)
    run = kept.read()
    assert run.integrity.reasons == ()
    assert path.exists()
    assert main(["judge"]) == ExitCode.NOTHING_VERIFIED
    assert f"    {LOST}: observed " in capsys.readouterr().out


def test_a_history_that_was_edited_after_the_run_is_not_judged(kept: Kept, capsys: pytest.CaptureFixture[str]) -> None:
    path = kept.judged("direct", WHOLE)
    kept.read()
    path.write_bytes(path.read_bytes().replace(b'"fail"', b'"ok"'))
    assert main(["judge"]) == ExitCode.NOTHING_VERIFIED
    out, err = capsys.readouterr()
    assert out == ""
    assert f"not judged: run {RUN} was edited" in err
    assert f"histories/direct/{CHECK}.jsonl" in err


def test_a_killed_run_is_judged_where_its_final_state_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(judge_module, "JUDGES", (JUDGE,))
    kept = Kept(tmp_path / "reports", state="running")
    write_history(kept.store.folder, "direct", CHECK, RECORDS, WHOLE)
    torn = write_history(kept.store.folder, "session", CHECK, RECORDS, complete=False)
    torn.write_bytes(torn.read_bytes()[:-9])
    kept.read()
    assert main(["judge", "--topology", "session"]) == ExitCode.NOTHING_VERIFIED
    out, err = capsys.readouterr()
    assert "session  not judged   capture.insert; operations: 7 acknowledged, 1 failed, 2 unknown; 1 fault" in out
    assert "    the final state is missing: the check ended before it was read" in out
    assert f"note: run {RUN} did not finish" in err
    assert main(["judge"]) == ExitCode.OK
    assert capsys.readouterr().out.splitlines()[-1] == "2 histories: 1 holds, 1 not judged"


@pytest.mark.parametrize("damage", ["cut", "cut at a line", "another check", "another topology", "more after the end"])
def test_a_damaged_history_of_a_killed_run_is_not_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    """Its final state is there, so a judge could decide: it would miss what the history no longer says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(judge_module, "JUDGES", (JUDGE,))
    kept = Kept(tmp_path / "reports", state="running")
    path = write_history(kept.store.folder, "direct", CHECK, RECORDS, WHOLE)
    lines = path.read_bytes().splitlines(keepends=True)
    damaged = {
        "cut": [*lines[:-3], lines[-3][:-9]],
        "cut at a line": lines[:-3],
        "another check": [lines[0].replace(CHECK.encode(), b"capture.update"), *lines[1:]],
        "another topology": [lines[0].replace(b'"direct"', b'"session"'), *lines[1:]],
        "more after the end": [*lines, lines[-2]],
    }
    path.write_bytes(b"".join(damaged[damage]))
    kept.read()
    assert main(["judge"]) == ExitCode.NOTHING_VERIFIED
    assert "1 history: 1 not judged" in capsys.readouterr().out


def test_what_a_disturbed_check_lost_is_no_issue(kept: Kept, capsys: pytest.CaptureFixture[str]) -> None:
    write_history(kept.store.folder, "direct", CHECK, RECORDS, LOSING)
    kept.store.append(result("direct", CHECK, Status.NOT_RUN, "the run was interrupted before this check finished"))
    kept.read()
    assert main(["judge"]) == ExitCode.NOTHING_VERIFIED
    out = capsys.readouterr().out
    assert "direct  not counted" in out
    assert "    its row is Not run: the run was interrupted" in out


def test_histories_under_controls_are_judged_on_request(kept: Kept, capsys: pytest.CaptureFixture[str]) -> None:
    kept.judged("direct", WHOLE)
    write_history(kept.store.folder, "direct", CHECK, RECORDS, LOSING, control="commits-lost")
    kept.read()
    assert main(["judge"]) == ExitCode.OK
    assert "under" not in capsys.readouterr().out
    # nothing is expected of a control that this version lacks, so nothing is missing
    assert main(["judge", "--under"]) == ExitCode.NOTHING_VERIFIED
    out = capsys.readouterr().out
    assert f"direct  Issue        {CHECK} under commits-lost" in out
    assert "this version has no control 'commits-lost' of this check" in out


@pytest.mark.parametrize(
    ("state", "code"), [(LOSING, ExitCode.OK), (WHOLE, ExitCode.ISSUE)], ids=["as expected", "no Issue"]
)
def test_a_control_that_this_version_lacks_decides_nothing_beside_another(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, state: Present, code: ExitCode
) -> None:
    control = Control(name="commits-lost", check=CHECK, at=LOST, needs=(), apply=lambda _: None)
    monkeypatch.setattr(Catalogue, "controls_of", lambda *_: (control,))
    write_history(kept.store.folder, "direct", CHECK, RECORDS, state, control="commits-lost")
    write_history(kept.store.folder, "direct", CHECK, RECORDS, LOSING, control="of-last-year")
    kept.read()
    assert main(["judge", "--under"]) == code


@pytest.mark.parametrize(
    ("arguments", "notes"),
    [
        (["--topology", "direct", "--topology", "transaction"], ["transaction"]),
        (["--check", CHECK, "--check", "capture.update", "--topology", "direct"], ["capture.update"]),
        (["--topology", "direct", "--topology", "session", "--check", CHECK], []),
    ],
)
def test_a_name_without_a_history_is_named_though_another_one_has_some(
    kept: Kept, capsys: pytest.CaptureFixture[str], arguments: list[str], notes: list[str]
) -> None:
    kept.judged("direct", WHOLE)
    write_history(kept.store.folder, "session", CHECK, RECORDS, WHOLE).write_bytes(b"{")
    kept.read()
    assert main(["judge", "latest", *arguments]) == ExitCode.OK
    err = capsys.readouterr().err.splitlines()
    assert [line for line in err if "no history" in line] == [f"note: no history of {name}" for name in notes]


def test_a_named_folder_is_searched_in_the_usual_places_only(kept: Kept, tmp_path: Path) -> None:
    """`judge /` does not read a whole disk."""
    kept.judged("direct", WHOLE)
    kept.read()
    deep = tmp_path / "a" / "b" / "c" / "d"
    deep.mkdir(parents=True)
    (tmp_path / "reports").rename(deep / "reports")
    assert main(["judge", "a"]) == ExitCode.USAGE
    assert main(["judge", str(deep)]) == ExitCode.OK


def test_only_the_folder_of_a_named_run_is_searched_for_histories(
    kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.judged("direct", WHOLE)
    kept.read()
    RunStore(tmp_path / "reports", replace(record(RUN.replace("0101", "0102")), plan=()), Redactor()).close()
    searched: list[Path] = []

    def noted(run: Path) -> tuple[Path, ...]:
        searched.append(run)
        return history_files(run)

    monkeypatch.setattr(run_evidence, "history_files", noted)
    assert main(["judge", RUN]) == ExitCode.OK
    assert searched == []
    assert main(["judge"]) == ExitCode.OK
    assert searched


@pytest.mark.parametrize(
    ("at", "state", "said", "code"),
    [
        (LOST, LOSING, f"as its control expects: an Issue at {LOST!r}", ExitCode.OK),
        (LOST, WHOLE, f"its control expects an Issue at {LOST!r}, and the judge finds no Issue", ExitCode.ISSUE),
        ("rows", LOSING, "its control expects an Issue at 'rows', and the judge finds an Issue else", ExitCode.ISSUE),
    ],
)
def test_a_run_under_a_control_is_judged_by_what_its_control_expects(
    kept: Kept,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    at: str,
    state: Present,
    said: str,
    code: ExitCode,
) -> None:
    """The run is where `verify --under` stores it: below the reports folder, and newer than the ordinary one."""
    kept.judged("direct", WHOLE)
    kept.read()
    control = Control(name="commits-lost", check=CHECK, at=at, needs=(), apply=lambda _: None)
    monkeypatch.setattr(Catalogue, "controls_of", lambda *_: (control,))
    run_id = RUN.replace("aaaaaaa1", "bbbbbbb2")
    under = replace(record(run_id, state="finished"), plan=(planned("direct", CHECK),), under="commits-lost")
    store = RunStore(tmp_path / "reports" / "under", under, Redactor())
    path = write_history(store.folder, "direct", CHECK, RECORDS, state, control="commits-lost")
    store.append(row("direct", expectations_of(path)))
    store.close()
    for arguments in (["latest"], [], [run_id], ["bbb2"]):
        assert main(["judge", *arguments, "--under"]) == code
        out, err = capsys.readouterr()
        assert said in out
        assert ("the newest run with histories" in err) is (not arguments)
    assert main(["judge", ""]) == ExitCode.USAGE
    assert main(["judge", "2026", "--under"]) == ExitCode.USAGE
    assert "'2026' is a part of 2 runs: " in capsys.readouterr().err
    assert main(["judge", run_id]) == ExitCode.NOTHING_VERIFIED
    assert f"runs with a history: {RUN}" in capsys.readouterr().err
    assert main(["judge"]) == ExitCode.OK


def test_a_control_that_broke_the_judge_itself_is_not_judged(kept: Kept, capsys: pytest.CaptureFixture[str]) -> None:
    facts = {REPLACED_JUDGE: "yes"}
    write_history(kept.store.folder, "direct", CHECK, RECORDS, WHOLE, control="commits-lost", facts=facts)
    kept.read()
    assert main(["judge", "--under"]) == ExitCode.NOTHING_VERIFIED
    assert "its control broke the judge itself" in capsys.readouterr().out


def test_without_a_name_the_newest_run_with_histories_is_judged(
    kept: Kept, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept.judged("direct", WHOLE)
    kept.read()
    newer = RUN.replace("20260101", "20260102")
    RunStore(tmp_path / "reports", replace(record(newer), plan=()), Redactor()).close()
    assert main(["judge"]) == ExitCode.OK
    assert f"run {RUN}: the newest run with histories\n" in capsys.readouterr().err
    assert main(["judge", "latest"]) == ExitCode.NOTHING_VERIFIED
    assert f"{newer} does not have a history; runs with a history: {RUN}" in capsys.readouterr().err


def test_an_expired_quarantine_accepts_nothing(kept: Kept, tmp_path: Path) -> None:
    kept.judged("session", LOSING)
    kept.read()
    (tmp_path / "harness.toml").write_text(
        f'[[quarantine]]\ncheck = "{CHECK}"\nlink = "https://example.org/1"\nowner = "ada"\nexpires = "2020-01-01"\n'
    )
    assert main(["judge"]) == ExitCode.ISSUE


def test_the_history_of_an_attempt_is_compared_with_its_own_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(judge_module, "JUDGES", (JUDGE,))
    plan = (replace(planned("direct", CHECK), attempts=10),)
    store = RunStore(tmp_path / "reports", replace(record(RUN), plan=plan), Redactor())
    # the last two histories are those of the other row
    found = {1: (WHOLE, WHOLE), 2: (LOSING, LOSING), 3: (WHOLE, LOSING), 10: (LOSING, WHOLE)}
    for attempt, (stored, now) in found.items():
        path = write_history(store.folder, "direct", CHECK, RECORDS, stored, attempt=attempt)
        store.append(replace(row("direct", expectations_of(path)), attempt=attempt))
        write_history(store.folder, "direct", CHECK, RECORDS, now, attempt=attempt)
    store.close()
    verdicts = [Judgement.HOLDS, Judgement.ISSUE, Judgement.DIFFERS, Judgement.DIFFERS]
    assert [one.verdict for one in judged_again(read_run(store.folder), (JUDGE,))] == verdicts
    assert main(["judge"]) == ExitCode.NOTHING_VERIFIED
    assert f"direct  Issue        {CHECK}, attempt 2; operations: " in capsys.readouterr().out


def test_each_history_of_an_attempt_accounts_for_its_own_expectations(kept: Kept) -> None:
    kept.judged("direct", WHOLE)
    write_history(kept.store.folder, "direct", CHECK, RECORDS, LOSING, number=2)
    write_history(kept.store.folder, "direct", CHECK, RECORDS, WHOLE, number=10)
    found = list(judged_again(kept.read(), (JUDGE,)))
    assert [one.file.partition("insert")[2] for one in found] == [".jsonl", ".2.jsonl", ".10.jsonl"]
    # the row has the expectations of one of them only
    assert [one.verdict for one in found] == [Judgement.HOLDS, Judgement.DIFFERS, Judgement.DIFFERS]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "does not have a history; harness verify"),
        (["--under"], "does not have a history under a control; "),
        (["--topology", "session"], "does not have a history of this selection; try it without"),
    ],
)
def test_without_a_history_there_is_nothing_to_judge(
    kept: Kept, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    kept.read()
    assert main(["judge", *arguments]) == ExitCode.NOTHING_VERIFIED
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err


def test_a_judge_that_this_version_does_not_know(kept: Kept, capsys: pytest.CaptureFixture[str]) -> None:
    write_history(kept.store.folder, "direct", CHECK, RECORDS, WHOLE, judge="of-next-year")
    kept.read()
    assert main(["judge"]) == ExitCode.NOTHING_VERIFIED
    assert "unknown judge 'of-next-year', expected one of made-up" in capsys.readouterr().out


def test_a_load_records_no_acknowledged_operation(kept: Kept, capsys: pytest.CaptureFixture[str]) -> None:
    failed = [*operations(1, outcomes={0: "fail"}), Sample(seconds=1.0, values={"transactions per second": 9.0})]
    write_history(kept.store.folder, "direct", CHECK, failed, Present(()))
    kept.read()
    assert main(["judge"]) == ExitCode.OK
    assert "1 samples; recorded one by one: 1 failed, 0 unknown" in capsys.readouterr().out


def test_an_unknown_run_is_a_usage_error(kept: Kept) -> None:
    kept.read()
    assert main(["judge", "of-yesterday"]) == ExitCode.USAGE


def test_the_json_has_what_the_lines_have(kept: Kept, capsys: pytest.CaptureFixture[str]) -> None:
    kept.judged("session", LOSING)
    kept.read()
    assert main(["judge", "--json"]) == ExitCode.ISSUE
    [found] = json.loads(capsys.readouterr().out)
    assert (found["run"], found["verdict"], found["faults"]) == (RUN, "Issue", 1)
    assert found["operations"] == {"ok": 8, "fail": 1, "unknown": 1}
    assert [one["name"] for one in found["expectations"] if not one["held"]] == [LOST]


@given(junk=st.binary(max_size=200), state=st.booleans())
def test_a_damaged_history_never_ends_the_command(junk: bytes, *, state: bool) -> None:
    with tempfile.TemporaryDirectory() as reports:
        kept = Kept(Path(reports))
        path = write_history(kept.store.folder, "direct", CHECK, RECORDS, WHOLE)
        damaged = path.with_name(f"{CHECK}.state.json") if state else path
        damaged.write_bytes(junk)
        [found] = judged_again(kept.read(), (JUDGE,))
    assert found.verdict is Judgement.NOT_JUDGED
    assert found.reason
