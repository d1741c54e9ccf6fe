"""Files of ingest pipelines: loading, the messages for mistakes, the options that name one, and its evidence."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from harness.cli.evidence import _pipelines_now
from harness.cli.exit_codes import ExitCode
from harness.cli.main import main
from harness.cli.selection import select_rows
from harness.cli.settings import read_settings
from harness.cli.settings_options import SettingsOptions
from harness.errors import ConfigError, UsageError
from harness.ingest.loading import PROJECT, REFERENCE, find, fingerprint_now, load, shipped
from harness.ingest.pipeline_file import Logs, Status
from harness.model import IngestLabel, Section
from harness.model import Status as Verdict
from harness.report.factors import differences
from harness.report.merging import merge
from tests.unit.made_up import planned, record, result, store_run

if TYPE_CHECKING:
    from harness.model import PlannedCheck
    from harness.report.evidence import Evidence
    from harness.store import StoredRun

END_TO_END = "ingest.end-to-end"
TABLE = """
title = "Shop"

[packages]
python = ["boto3==1.44.8"]

[commands]
migrate = ["{python}", "{folder}/shop/migrate.py"]
api = ["{python}", "-m", "api"]
worker = ["sh", "-c", "exec ${PYTHON:-python3} {folder}/worker.py"]

[presign]
path = "/uploads"
json = { filename = "{filename}", projectId = "{project}", contentType = "{content_type}" }
keep = { id = "uploadId", url = "url", key = "objectKey" }

[statuses]
pending = ["new"]
indexed = ["ready", "done"]
failed = ["broken"]

[sql]
uploads = "SELECT id, key, status FROM uploads"
"""


def written(folder: Path, text: str = TABLE, name: str = "shop") -> Path:
    """Write a pipeline with its programs, and return the path of its file."""
    (folder / "shop").mkdir(parents=True, exist_ok=True)
    for program in ("shop/migrate.py", "shop/tables.py", "api.py", "worker.py"):
        (folder / program).write_text("print('hello')\n")
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of a pipeline in a project of its own."""
    monkeypatch.chdir(tmp_path)
    return written(Path("own"))


def test_a_pipeline_is_loaded_with_its_folder(file: Path) -> None:
    found = load(file)
    assert (found.name, found.title, found.own_file) == ("shop", "Shop", "own/shop.toml")
    assert found.command("migrate", "/venv/python") == ("/venv/python", str(file.absolute().parent / "shop/migrate.py"))
    # a shell's word stays as it is
    assert found.command("worker", "p")[2] == f"exec ${{PYTHON:-python3}} {file.absolute().parent}/worker.py"
    assert found.uses("python")
    assert not found.uses("node")
    assert [found.status_of(word) for word in ("new", "done", "broken", "another")] == [
        Status.PENDING,
        Status.INDEXED,
        Status.FAILED,
        Status.PENDING,
    ]


def test_the_shipped_pipelines_are_named_and_are_harness_code() -> None:
    assert REFERENCE in {pipeline.name for pipeline in shipped()}
    assert {pipeline.own_file for pipeline in shipped()} == {""}
    with pytest.raises(UsageError, match="unknown pipeline 'referense'") as caught:
        find("referense")
    assert "did you mean reference?" in caught.value.hint


def test_a_file_can_say_that_a_pipeline_has_no_lease_and_no_form_of_log_lines(file: Path) -> None:
    declared = load(file).file
    assert (declared.settings.lease_s, declared.logs) == (3.0, None)
    written(file.parent, f"{TABLE}\n[settings]\nlease_s = 0\n[logs]\n")
    declared = load(file).file
    assert (declared.settings.lease_s, declared.logs) == (0.0, Logs())
    assert [pipeline.file.logs for pipeline in shipped()] == [Logs()] * len(shipped())
    assert find("original").file.settings.lease_s == 0


@pytest.mark.parametrize("program", ["shop/migrate.py", "shop/tables.py", "api.py", "worker.py", "shop.toml"])
def test_each_file_of_a_program_decides_the_fingerprint(file: Path, program: str) -> None:
    before = load(file).identity
    assert fingerprint_now(str(file)) == before
    with (file.parent / program).open("a") as source:
        source.write("# edited\n")
    assert fingerprint_now(str(file)) not in {before, "", "invalid"}


@pytest.mark.parametrize(
    "command",
    [
        '["{python}", "-m", "uvicorn", "shop.tables:app"]',
        '["celery", "-A", "shop.tables", "worker"]',
        '["sh", "-c", "exec python -m uvicorn --factory shop.tables:app"]',
        '["gunicorn", "--chdir=shop", "tables:app"]',
    ],
)
def test_a_module_decides_the_fingerprint_however_a_command_names_it(file: Path, command: str) -> None:
    written(file.parent, TABLE.replace("shop/migrate.py", "api.py").replace('["{python}", "-m", "api"]', command))
    before = load(file).identity
    (file.parent / "shop/tables.py").write_text("edited\n")
    assert fingerprint_now(str(file)) not in {before, "", "invalid"}


def test_a_file_that_is_gone_or_invalid_has_no_fingerprint(file: Path) -> None:
    (file.parent / "notes.txt").write_text("no program names this\n")
    before = load(file).identity
    (file.parent / "notes.txt").write_text("edited\n")
    assert fingerprint_now(str(file)) == before
    file.write_text("nonsense = 1\n")
    assert fingerprint_now(str(file)) == "invalid"
    assert fingerprint_now("nowhere/shop.toml") == ""


@pytest.mark.parametrize(
    ("old", "new", "message", "hint"),
    [
        ("boto3==1.44.8", "boto3>=1", "packages.python: 'boto3>=1' names no exact version", "boto3==VERSION"),
        ("{folder}/worker.py", "{folder}/gone.py", "commands.worker: no such file", "{folder} is the folder"),
        ('"-m", "api"', '"{port}"', "commands.api: unknown placeholder {port}", "environment of the program"),
        ('url = "url", ', "", "presign.keep: needs url, found id, key", "keep = {"),
        ('"{filename}"', '"{filname}"', "presign: unknown placeholder {filname}", "did you mean filename?"),
        (
            'indexed = ["ready", "done"]',
            "",
            "statuses: needs the pipeline's own word for indexed",
            'indexed = ["WORD"]',
        ),
        ('failed = ["broken"]', 'failed = ["new"]', "statuses: 'new' stands for two states", "name each word once"),
    ],
)
def test_a_mistake_is_named_with_what_to_try(file: Path, old: str, new: str, message: str, hint: str) -> None:
    assert old in TABLE
    written(file.parent, TABLE.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert message in caught.value.what
    assert hint in caught.value.hint
    assert str(file) in caught.value.where


@pytest.mark.parametrize(
    ("headers", "problem"),
    [
        ("[presign.headers]\nX = 'a'\n'X Y' = 'z'", "presign.headers: invalid key: expected text matching"),
        ("[upload_headers]\n'' = 'x'", "upload_headers: invalid key: expected text matching"),
        ("[presign.headers]\nX = 'a'\nY = 'hunter2 ☃'", "presign.headers.Y: found another text, allowed: text matching"),
        ('[upload_headers]\nX = "hunter2\\n"', "upload_headers.X: found another text, allowed: text matching"),
        (
            '[[callers]]\nactor = { id = "1" }\nheaders = { X = "hunter2\\u0000" }',
            "callers[0].headers.X: found a NUL character",
        ),
    ],
)
def test_a_header_that_no_request_can_hold_is_named_and_not_repeated(file: Path, headers: str, problem: str) -> None:
    written(file.parent, f"{TABLE}\n{headers}\n")
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert caught.value.what.startswith(problem)
    assert "hunter2" not in str(caught.value)


def _as_table() -> str:
    """Return the pipeline as the table of `harness.toml`."""
    lines = TABLE.strip().splitlines()
    return "\n".join(["[ingest]", *(f"[ingest.{line[1:]}" if line.startswith("[") else line for line in lines)])


@pytest.mark.parametrize(
    ("name", "hint"),
    [("shop", "write [presign] in place of [ingest.presign]"), ("harness", "so leave --pipeline out")],
)
def test_the_table_of_harness_toml_in_a_file_of_its_own_is_named(tmp_path: Path, name: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(written(tmp_path, _as_table(), name))
    assert caught.value.what == "ingest: a file of its own describes one pipeline, and has its keys at the top level"
    assert hint in caught.value.hint


def test_a_file_of_its_own_in_harness_toml_is_named(file: Path) -> None:
    Path("harness.toml").write_text(file.read_text())
    with pytest.raises(ConfigError) as caught:
        read_settings()
    assert caught.value.what == "presign: a key of a pipeline, which belongs to the table [ingest]"
    assert "write [ingest.presign] in place of [presign]" in caught.value.hint


def test_a_key_below_the_header_of_another_table_is_named(file: Path) -> None:
    written(file.parent, TABLE.replace('path = "/uploads"', 'path = "/uploads"\nhealth = "/up"'))
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert caught.value.what.startswith("presign.health: unknown key")
    assert caught.value.hint == "health is a key of the file itself: write it above the line [presign]"


def test_a_name_is_part_of_the_evidence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="invalid name 'My Shop' of a pipeline"):
        load(written(tmp_path, name="My Shop"))


@given(st.dictionaries(st.sampled_from(sorted(tomllib.loads(TABLE))), st.integers() | st.text() | st.just({})))
def test_invalid_values_are_errors_for_users(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, object]
) -> None:
    lines = [f"{key} = {value if isinstance(value, int) else repr('x')}" for key, value in values.items()]
    path = tmp_path_factory.mktemp("own") / "shop.toml"
    path.write_text("\n".join(lines))
    with pytest.raises(ConfigError):
        load(path)


# --- options and evidence --------------------------------------------------------------------------------


def test_an_option_names_the_pipeline_and_is_in_the_command_that_reproduces_a_row(file: Path) -> None:
    settings = read_settings(SettingsOptions(pipeline=str(file)))
    [row] = select_rows(settings, ["direct"], [], [END_TO_END]).plan(settings)
    assert row.ingest == IngestLabel(pipeline="shop", title="Shop", case="end-to-end", file=str(file))
    assert row.declared_as == load(file).identity
    assert row.reproduce == f"python -m harness verify direct --check {END_TO_END} --pipeline {file}"
    assert settings.of_project.pipeline is find(REFERENCE)


@pytest.mark.usefixtures("file")
def test_harness_toml_names_the_pipeline_and_an_option_wins(capsys: pytest.CaptureFixture[str]) -> None:
    table = _as_table().replace("{folder}/", "{folder}/own/").replace('"-m", "api"', '"{folder}/own/api.py"')
    Path("harness.toml").write_text(table)
    settings = read_settings()
    assert (settings.pipeline.name, settings.pipeline.own_file) == (PROJECT, "harness.toml")
    [row] = select_rows(settings, ["direct"], [], [END_TO_END]).plan(settings)
    assert "--pipeline" not in row.reproduce
    assert read_settings(SettingsOptions(pipeline=REFERENCE)).pipeline.name == REFERENCE
    assert PROJECT in {row["name"] for row in _listed(capsys)}


def test_the_list_has_the_shipped_pipelines_and_that_of_the_project(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "pipelines"]) == ExitCode.OK
    assert "  reference  " in capsys.readouterr().out
    assert PROJECT not in {row["name"] for row in _listed(capsys)}


def _listed(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    assert main(["list", "pipelines", "--json"]) == ExitCode.OK
    found: list[dict[str, object]] = json.loads(capsys.readouterr().out)
    return found


def test_a_run_that_names_nothing_has_no_row_of_the_pipeline(file: Path) -> None:
    settings = read_settings(SettingsOptions(pipeline=str(file)))
    assert not [row for row in select_rows(settings, ["direct"], [], []).plan(settings) if row.ingest]


def test_statement_mode_is_not_applicable(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "statement", "--check", END_TO_END, "--pipeline", str(file), "--dry-run"]) == ExitCode.OK
    assert "N/A: statement pooling refuses transaction blocks" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("value", "message"),
    [("", "--pipeline: found an empty name"), ("nothing", "unknown pipeline 'nothing'"), ("no.toml", "no.toml")],
)
def test_an_invalid_option_is_an_error_for_users(value: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "direct", "--suite", "ingest", "--dry-run", "--pipeline", value]) == ExitCode.USAGE
    assert message in capsys.readouterr().err


def _row_of(identity: str) -> PlannedCheck:
    label = IngestLabel(pipeline="shop", title="Shop", case="end-to-end", file="shop.toml")
    return replace(planned("direct", END_TO_END), section=Section.INGEST, ingest=label, declared_as=identity)


def test_evidence_about_another_pipeline_does_not_count(tmp_path: Path) -> None:
    first = store_run(tmp_path / "1", [result("direct", END_TO_END)], replace(record(), plan=(_row_of("shop d1"),)))
    issue = result("direct", END_TO_END, Verdict.ISSUE, "uploads that are not indexed: expected 0, observed 1")
    second = store_run(tmp_path / "2", [issue], replace(record(), plan=(_row_of("other d2"),)))
    [row] = merge([first, second], []).rows
    assert (row.status, row.planned.declared_as) == (Verdict.ISSUE, "other d2")
    [row] = merge([first], [], job_engines={("direct", END_TO_END): "shop d9"}).rows
    assert row.status is Verdict.NOT_RUN
    assert row.result.reason == "what the evidence is about has changed: the ingest pipeline, its files, or its store"


def test_a_report_is_about_the_pipeline_of_the_newest_run(tmp_path: Path) -> None:
    def planned_for(pipeline: str, target: str, check: str) -> PlannedCheck:
        label = IngestLabel(pipeline=pipeline, title=pipeline, case=check.partition(".")[2])
        return replace(planned(target, check), section=Section.INGEST, ingest=label, declared_as=pipeline)

    def run(number: int, pipeline: str, target: str, *checks: str) -> StoredRun:
        plan = tuple(planned_for(pipeline, target, check) for check in checks)
        facts = replace(record(f"20260101T000000Z-0000000{number}"), plan=plan)
        return store_run(tmp_path / str(number), [result(target, check) for check in checks], facts)

    runs = [
        run(1, "reference", "transaction", END_TO_END, "ingest.latency"),
        run(2, "original", "transaction", END_TO_END, "ingest.retries"),
        run(3, "reference", "direct", END_TO_END),
    ]
    evidence = merge(runs, [])
    assert {(row.planned.target, row.planned.check) for row in evidence.rows if row.result.status is Verdict.OK} == {
        ("transaction", END_TO_END),
        ("transaction", "ingest.latency"),
        ("direct", END_TO_END),
    }
    assert len(evidence.rows) == len({row.planned.check for row in evidence.rows}) + 1
    [note] = [note for note in evidence.left_out if "the suite ingest" in note]
    assert note.startswith(f"run {runs[1].record.run_id} is left out for the suite ingest")


def test_a_comparison_names_the_pipeline_that_is_another_one(tmp_path: Path) -> None:
    def evidence(number: int, identity: str) -> Evidence:
        facts = replace(record(f"20260101T000000Z-0000000{number}"), plan=(_row_of(identity),))
        return merge([store_run(tmp_path / str(number), [result("direct", END_TO_END)], facts)], [])

    [difference] = differences(evidence(1, "shop d1"), evidence(2, "shop d2"), {"direct": "direct"})
    assert difference.text == "subject of the ingest pipeline: shop d1 → shop d2"
    assert difference.concerns("direct", END_TO_END)
    assert not difference.concerns("direct", "capture.insert")
    assert differences(evidence(3, "shop d1"), evidence(4, "shop d1"), {"direct": "direct"}) == ()


_STORE = '[store]\nendpoint = "{}"\nbucket = "b-1"\nprefix = "p/"\naccess_key = "env:A"\nsecret_key = "env:S"\n'


def test_the_store_of_a_project_belongs_to_the_pipeline_that_a_report_is_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = find(REFERENCE)
    label = IngestLabel(pipeline=REFERENCE, title=shipped.title, case="end-to-end")
    identities = set()
    for text in ("", _STORE.format("http://one:9000"), _STORE.format("http://two:9000")):
        Path("harness.toml").write_text(text)
        settings = read_settings()
        identities.add(settings.pipeline.identity)
        assert read_settings(SettingsOptions(pipeline=REFERENCE)).pipeline.identity == settings.pipeline.identity
        [row] = [row for row in select_rows(settings, ["direct"], [], [END_TO_END]).plan(settings) if row.ingest]
        assert row.declared_as == settings.pipeline.identity
        planned_row = replace(_row_of(shipped.identity), ingest=label)
        run = store_run(tmp_path / "run", [result("direct", END_TO_END)], replace(record(), plan=(planned_row,)))
        [merged] = merge([run], [], job_engines=_pipelines_now([run], settings)).rows
        assert merged.status is (Verdict.NOT_RUN if text else Verdict.OK)
        shutil.rmtree(tmp_path / "run")
    assert len(identities) == 3
    assert fingerprint_now("no-such-pipeline") == ""
