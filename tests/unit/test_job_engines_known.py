"""Job engines of a project's own: which ones a command knows, runs and plans, and what evidence about them is worth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from harness.cli.exit_codes import ExitCode
from harness.cli.main import main
from harness.cli.selection import select_rows
from harness.cli.settings import read_settings
from harness.cli.settings_options import SettingsOptions
from harness.errors import ConfigError, UsageError
from harness.job_engines.known import KnownJobEngines, declared_job_engines, fingerprint_now
from harness.job_engines.loading import load, shipped
from harness.model import JobLabel, PlannedCheck, Proof, Section, Status
from harness.report.factors import differences
from harness.report.merging import merge
from tests.unit.made_up import planned, record, result, store_run
from tests.unit.test_job_engines_loading import written

if TYPE_CHECKING:
    from harness.report.evidence import Evidence

WORKS = "jobs.mine-default-works"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HARNESS_REPORTS", raising=False)
    (tmp_path / "engines").mkdir()
    written(tmp_path / "engines")
    return Path("engines/mine.toml")


def declare(*paths: str) -> None:
    Path("harness.toml").write_text(f"job_engines = [{', '.join(map(repr, paths))}]\n")


# --- the command line -------------------------------------------------------------------------------------


def test_a_job_engine_of_the_project_file_belongs_to_runs_that_do_not_omit_its_suite(file: Path) -> None:
    declare(str(file))
    settings = read_settings()
    plan = select_rows(settings, ["direct", "transaction"], [], []).plan(settings)
    rows = [row for row in plan if row.job and row.job.engine == "mine"]
    assert {row.target for row in rows} == {"transaction"}  # direct omits the suite
    assert {row.declared_as for row in rows} == {load(file).fingerprint}
    assert [row.reproduce for row in rows if row.check == WORKS] == [
        f"python -m harness verify transaction --check {WORKS}"
    ]
    assert {row.declared_as for row in plan if row.job and row.job.engine == "absurd"} == {""}  # harness code


def test_a_file_on_the_command_line_has_rows_for_this_command_only(file: Path) -> None:
    settings = read_settings(SettingsOptions(job_engines=(str(file), "absurd")))
    plan = select_rows(settings, ["direct"], [], []).plan(settings)
    assert {row.job.engine for row in plan if row.job} == {"mine", "absurd"}
    assert all(row.job for row in plan)
    [row] = [row for row in plan if row.check == WORKS]
    assert row.reproduce == f"python -m harness verify direct --check {WORKS} --job-engine {file}"
    assert row.declared_as == load(file).fingerprint
    assert "--job-engine" not in next(row.reproduce for row in plan if row.job and row.job.engine == "absurd")
    assert not any(check.id == WORKS for check in settings.of_project.catalogue.checks)


def test_a_declared_job_engine_is_chosen_by_name_and_by_file(file: Path) -> None:
    declare(str(file))
    for name in ("mine", str(file), str(file.absolute())):
        settings = read_settings(SettingsOptions(job_engines=(name,)))
        rows = select_rows(settings, ["transaction"], [], []).plan(settings)
        assert {row.job.engine for row in rows if row.job} == {"mine"}
        assert not any("--job-engine" in row.reproduce for row in rows)


def test_checks_and_job_engines_select_what_both_name(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["verify", "direct", "--job-engine", str(file), "--dry-run"]
    assert main([*command, "--check", WORKS]) == ExitCode.OK
    assert capsys.readouterr().out.split() == ["direct", WORKS]
    assert main([*command, "--suite", "capture"]) == ExitCode.USAGE
    assert "--job-engine mine: no selected suite or check is about it" in capsys.readouterr().err


def test_a_variant_narrows_the_checks_of_a_job_engine(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["verify", "transaction", "--job-engine", "oban", "--job-engine", "pg-boss", "--dry-run"]
    for names in (["pooler"], ["default", "pooler"]):
        assert main([*command, *(word for name in names for word in ("--variant", name))]) == ExitCode.OK
        plan = [line.split()[1] for line in capsys.readouterr().out.splitlines()]
        chosen = tuple(f"jobs.{engine}-{name}-" for engine in ("oban", "pg-boss") for name in names)
        assert {check for check in plan if check.endswith("-works")} == {f"{start}works" for start in chosen}
        assert all(check.startswith(chosen) for check in plan)
    one_has_it = ["verify", "transaction", "--job-engine", "pg-boss", "--variant", "listen", "--dry-run"]
    assert main(one_has_it) == ExitCode.OK


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        # pg-boss has the variant listen, and oban would silently have no row
        (
            "--job-engine oban --job-engine pg-boss --variant listen",
            "the job engine oban has none of the variants listen",
            "it has default, pooler; name one of these too, or leave the job engine out",
        ),
        (
            "--job-engine oban --check jobs.oban-default-works --variant pooler",
            "--job-engine oban --variant pooler: no selected suite or check is about it",
            "leave --variant out",
        ),
        (
            "--job-engine oban --check jobs.oban-default-works --variant default --variant pooler",
            "harness: --variant pooler: no selected suite or check is about it",
            "leave --variant out",
        ),
        (
            "--job-engine oban --job-engine absurd --check jobs.absurd-default-works",
            "harness: --job-engine oban: no selected suite or check is about it",
            "leave --suite and --check out",
        ),
    ],
)
def test_nothing_that_is_named_is_silently_left_out(
    arguments: str, message: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", "transaction", *arguments.split(), "--dry-run"]) == ExitCode.USAGE
    shown = " ".join(capsys.readouterr().err.split())
    assert message in shown
    assert hint in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verify", "--job-engine", "absurd", "--variant", "poller"], "did you mean pooler?"),
        (["verify", "--variant", "pooler"], "found --variant without --job-engine"),
        (["verify", "--job-engine", "absurt"], "did you mean absurd?"),
        (["verify", "--job-engine", "nowhere.toml"], "nowhere.toml: no such file"),
        (["verify", "--job-engine", "absurd", "--environment", "staging"], "found --job-engine and --environment"),
        (["jobs", "try", "absurt"], "did you mean absurd?"),
        (["jobs", "try", "engines/mine.toml", "--variant", "poller"], "did you mean pooler?"),
        (["jobs", "try", "engines/mine.toml", "transacton"], "did you mean transaction"),
        (["jobs", "try"], "missing argument NAME|FILE.toml"),
        (["jobs"], "missing command, expected try"),
    ],
)
@pytest.mark.usefixtures("file")
def test_bad_usage_is_one_clear_error(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == ExitCode.USAGE
    assert message in capsys.readouterr().err


def test_list_has_the_job_engines_of_the_project_and_their_checks(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    declare(str(file))
    assert main(["list", "job-engines"]) == ExitCode.OK
    assert "mine  " in capsys.readouterr().out
    assert main(["list", "checks"]) == ExitCode.OK
    assert any(line.split()[:1] == [WORKS] for line in capsys.readouterr().out.splitlines())


# --- names ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["engines/gone.toml"], "engines/gone.toml: no such file"),
        (["absurd"], "found 'absurd', expected the path of a file that ends in .toml"),
        (["engines/mine.toml", "engines/mine.toml"], "engines/mine.toml is declared twice"),
        (["engines/mine.toml", "other/mine.toml"], "'mine' is the name of the job engine in "),
        (["other/absurd.toml"], "'absurd' is the name of a job engine that ships with the harness"),
        ([str(shipped()[0].folder / "absurd.toml")], "ships with the harness"),
    ],
)
@pytest.mark.usefixtures("file")
def test_a_mistake_in_the_project_file_is_named(paths: list[str], message: str) -> None:
    Path("other").mkdir()
    written(Path("other"))
    written(Path("other"), name="absurd")
    declare(*paths)
    with pytest.raises(ConfigError, match=r"harness\.toml|gone\.toml") as caught:
        read_settings()
    assert message in str(caught.value)


def test_a_job_engine_is_found_by_its_name_or_by_its_file(file: Path) -> None:
    known = KnownJobEngines()
    assert known.find("absurd").shipped
    assert known.find(str(file)) == load(file)
    with pytest.raises(UsageError, match="unknown job engine 'absrd'") as caught:
        known.find("absrd")
    assert "did you mean absurd" in caught.value.hint
    with pytest.raises(ConfigError, match="no such file"):
        known.find("absent.toml")


def test_a_name_stands_for_one_job_engine(file: Path) -> None:
    Path("other").mkdir()
    known = KnownJobEngines(declared=declared_job_engines([str(file)], "harness.toml"))
    with pytest.raises(UsageError, match="'mine' is the name of the job engine in"):
        known.choose([str(written(Path("other")))])
    with pytest.raises(UsageError, match="ships with the harness"):
        known.choose([str(written(Path("other"), name="absurd"))])
    assert KnownJobEngines().choose([str(file), str(file)]).given == {str(file): load(file)}
    assert KnownJobEngines().choose(["absurd"]).own == ()


# --- evidence ---------------------------------------------------------------------------------------------


def row_of(digest: str) -> PlannedCheck:
    label = JobLabel(engine="mine", title="Mine 1.2", variant="default", case="works")
    return replace(planned("direct", WORKS), section=Section.JOBS, job=label, declared_as=digest)


def test_evidence_of_an_edited_job_engine_does_not_count(tmp_path: Path) -> None:
    before, after = row_of("d1"), row_of("d2")
    proof = Proof(topology="direct", check=WORKS, control="x", at="y", proven=True, applicable=True, reason="")
    first = store_run(tmp_path / "1", [result("direct", WORKS)], replace(record(), plan=(before,)))
    first = replace(first, proofs=(proof,))
    [row] = merge([first], [before]).rows
    assert (row.status, row.proofs) == (Status.OK, (proof,))
    evidence = merge([first], [after])
    assert (evidence.rows[0].status, evidence.rows[0].proofs) == (Status.NOT_RUN, ())
    assert "what it tested has changed: the files of its job engine; run it again: " in evidence.left_out[0]
    reason = "what the evidence is about has changed: the files of its job engine"
    assert evidence.rows[0].result.reason == reason
    # a row that only the run knows, and a file that is here
    [row] = merge([first], [], job_engines={("direct", WORKS): "d2"}).rows
    assert (row.status, row.result.reason) == (Status.NOT_RUN, reason)


def test_the_files_of_a_job_engine_are_those_that_are_here_now(file: Path) -> None:
    digest = load(file).fingerprint
    assert load(file.absolute()).own_file == str(file)
    assert fingerprint_now(str(file)) == digest
    (file.parent / "mine.py").write_text("import steps\n")
    edited = fingerprint_now(str(file))
    (file.parent / "steps.py").write_text("print('imported')\n")
    assert len({digest, edited, fingerprint_now(str(file)), ""}) == 4
    file.write_text("nonsense = 1\n")
    assert fingerprint_now(str(file)) == "invalid"
    assert fingerprint_now("nowhere/mine.toml") == ""
    assert {engine.own_file for engine in shipped()} == {""}


def test_rows_that_only_runs_know_are_about_the_newest_files(tmp_path: Path) -> None:
    before, after = row_of("d1"), row_of("d2")
    old = store_run(tmp_path / "1", [result("direct", WORKS)], replace(record(), plan=(before,)))
    issue = result("direct", WORKS, Status.ISSUE, "jobs lost: expected 0, observed 2")
    new = store_run(tmp_path / "2", [issue], replace(record(), plan=(after,)))
    evidence = merge([old, new], [])
    assert [(row.status, row.planned.declared_as) for row in evidence.rows] == [(Status.ISSUE, "d2")]
    assert len(evidence.left_out) == 1


def test_a_comparison_names_the_job_engine_that_was_edited(tmp_path: Path) -> None:
    def evidence(number: int, digest: str) -> Evidence:
        facts = replace(record(f"20260101T000000Z-0000000{number}"), plan=(row_of(digest),))
        return merge([store_run(tmp_path / str(number), [result("direct", WORKS)], facts)], [])

    [difference] = differences(evidence(1, "d1"), evidence(2, "d2"), {"direct": "direct"})
    assert difference.text == "subject of the job engine mine: digest d1 → digest d2"
    assert difference.concerns("direct", WORKS)
    assert not difference.concerns("direct", "capture.insert")
    assert differences(evidence(3, "d1"), evidence(4, "d1"), {"direct": "direct"}) == ()
