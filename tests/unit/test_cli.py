"""The command line: usage errors, settings, lists, plans, completion, and controls that are watched."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click
import pytest
from msgspec.structs import replace

from harness import places
from harness.checks.registry import Safety
from harness.cli import running
from harness.cli.completion import SCRIPTS
from harness.cli.evidence import evidence_from, evidence_here, expected_rows
from harness.cli.exit_codes import ExitCode
from harness.cli.filling import report_of
from harness.cli.main import main, root
from harness.cli.parser import Command, option_names
from harness.cli.planning import plan_environment
from harness.cli.selection import Selection, select_rows
from harness.cli.settings import read_settings
from harness.cli.settings_options import SettingsOptions
from harness.errors import ConfigError, HarnessError
from harness.lab.topologies import load_topologies, select, with_versions
from harness.model import Expectation, Status
from harness.provenance import fingerprint
from harness.suites.catalogue import catalogue
from tests.tables import each_row
from tests.unit.command_lines import commands, parse
from tests.unit.made_up import record, result, stood, store_run

if TYPE_CHECKING:
    from harness.cli.invocation import Invocation
    from harness.model import Topology
    from harness.store import StoredRun

#: the topologies that run when none is named
DEFAULT = [topology.name for topology in select(load_topologies(), [])]
COMMANDS = dict(commands())


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("HARNESS_ENGINE", "HARNESS_PULL", "HARNESS_REPORTS", "HARNESS_IMAGE_PREFIX"):
        monkeypatch.delenv(name, raising=False)


# --- usage errors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verify", "transacton"], "did you mean transaction"),
        (["verify", "--check", "actor.many-client"], "did you mean actor.many-clients"),
        (["verify", "--suite", "actors"], "did you mean actor?"),
        (["verify", "--jobs", "0"], "--jobs: found '0', expected a whole number from 1 to 64"),
        (["verify", "--jobs", "many"], "--jobs: found 'many', expected a whole number from 1 to 64"),
        (["verify", "--engine", "podman"], "--engine: found 'podman', expected auto, docker or native"),
        (["verify", "--engine", "dokcer"], "did you mean docker?"),
        (["verify", "--set", "postgres"], "--set: found 'postgres', expected PRODUCT=VERSION"),
        (["verify", "--set", "postgress=15"], "did you mean postgres?"),
        (["verify", "--set", "hostap=3"], "choose one of: pgagroal, pgbouncer, pgpool, postgres\n"),
        (["verify", "direct", "--set", "pgpool=4.3"], "--set pgpool=4.3 has no effect: no chosen topology uses pgpool"),
        (["verify", "transaction", "--set", "pgpool=4.3"], "choose from the products in use: postgres, pgbouncer\n"),
        (["prove", "direct", "--set", "pgbouncer=1.18"], "choose from the products in use: postgres\n"),
        (["exec", "direct", "--set", "pgbouncer=1.18", "--", "true"], "no chosen topology uses pgbouncer"),
        (["images", "direct", "--set", "pgbouncer=1.18"], "no chosen topology uses pgbouncer"),
        (["verify", "direct", "--image", "pgpool=x:1"], "--image pgpool=x:1 has no effect"),
        (["matrix", "--set", "pgagroal=1.6"], "--set pgagroal=1.6 has no effect"),
        (["verify", "--image", "postgres"], "--image: found 'postgres', expected PRODUCT=REFERENCE"),
        (["verify", "--set", "postgres=12"], "unknown version '12' of postgres"),
        (["verify", "--chek", "x"], "no such option --chek; did you mean --check?\n"),
        (["verify", "--environmnt=x"], "no such option --environmnt; did you mean --environment?\n"),
        (["verify", "--check"], "option '--check' requires an argument"),
        (["verify", "--check", "--dry-run"], "requires an argument, found the option '--dry-run'"),
        (["verify", "--dry-run=yes"], "option '--dry-run' does not take a value"),
        (["--engine", "docker", "verify"], "options follow the command: harness verify --engine"),
        (["--reports", "x", "list"], "options follow the command: harness list --reports\n"),
        (
            ["list", "things"],
            "harness: found 'things', expected topologies, suites, checks, targets, mutations, job-engines or pipelines",
        ),
        (["verfy"], "no such command 'verfy'; did you mean verify?\n"),
        (["audit", "instal"], "no such command 'instal'; did you mean install?\n"),
        (["frobnicate"], "no such command 'frobnicate'\n"),
        ([], "missing command, expected verify, prove, report"),
        (["audit"], "missing command, expected install, attach"),
        (["audit", "attach"], "missing argument TABLE"),
        (["audit", "purge"], "missing option --keep-days"),
        (["exec", "direct"], "missing argument COMMAND"),
        (["exec", "direct", "--deadline", "0", "--", "true"], "--deadline: found '0', expected seconds, more than 0"),
        (["report", "--complete", "--from", "x"], "expected one of them"),
        (["report", "somewhere"], "unexpected extra argument (somewhere)"),
        (["verify", "--topologies-folder", "nowhere"], "no such folder"),
        (["verify", "--image", "postgress=x"], "did you mean postgres"),
        (["verify", "--reports", ""], "--reports: found an empty name, expected a folder"),
        (["report", "--from", ""], "--from: found an empty name, expected a folder"),
        (["report", "--fresh"], "--fresh requires --complete"),
        (["report", "--check"], "--check requires --into"),
        (["report", "--into", "a.md", "--check", "--badge"], "found --badge and --check, expected one of them"),
        (["report", "--into", "a.md", "--check", "--baseline", "x"], "found --baseline and --check"),
        (["report", "--into", "a.md", "--check", "--save-baseline", "x"], "found --save-baseline and --check"),
        (["report", "--verify", "--badge"], "--verify fills no tables"),
        (["up", "direct", "--trail", "--role", "createdb"], "expected app, owner or superuser with --trail"),
        (["mutants", "statement"], "statement: statement pooling refuses transaction blocks, and audited writes need"),
        (["target", "try", "row-diff", "--topology", "statement"], "statement: statement pooling refuses transaction"),
        (["up", "direct", "--audit-target", "row-diff"], "--audit-target has no effect without --trail"),
        (["up", "direct", "--audit-sql", "x.sql"], "--audit-sql has no effect without --trail"),
        (["verify", "direct", "--environment", "staging"], "found topologies and --environment"),
        (["verify", "--environment", "staging"], "[environments.staging]"),
        (["prove", "--audit-target", "plain-trigger", "--suite", "capture"], "controls break the reference layer only"),
        (["prove", "statement", "--audit-target", "row-diff"], "statement: statement pooling refuses transaction blocks, so"),
        (["verify", "--under", "insert-trigger-disabled"], "selected checks, expected one"),
        (
            ["verify", "--check", "capture.insert", "--under", "insert-triger-disabled"],
            "did you mean insert-trigger-disabled",
        ),
        (["verify", "--environment", "staging", "--under", "x"], "found --under and --environment"),
    ],
)
def test_bad_usage_is_one_clear_error_and_exit_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == ExitCode.USAGE
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""


@pytest.mark.parametrize("arguments", [["verfy"], ["verify", "--chek"], ["verify", "--jobs", "0"], ["audit", "attach"]])
def test_a_usage_error_names_the_help_text_to_read(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main(arguments)
    hint = re.search(r"try: harness (.*)--help\n", capsys.readouterr().err)
    assert hint
    assert main([*hint[1].split(), "--help"]) == ExitCode.OK


def test_a_near_name_is_suggested_for_a_variable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HARNESS_ENGINE", "dokcer")
    assert main(["verify"]) == ExitCode.USAGE
    assert "expected auto, docker or native\n  try: did you mean docker?\n" in capsys.readouterr().err


def test_an_unwritable_reports_folder_ends_before_any_server_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["verify", "direct", "--reports", "file/reports"]) == ExitCode.NOTHING_VERIFIED
    err = capsys.readouterr().err
    assert "cannot be written" in err
    assert "--reports" in err


def test_a_mistake_of_the_harness_is_not_an_issue(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("postgresql://app:pa55word@db/x")

    monkeypatch.setattr("harness.cli.listing.load_topologies", fail)
    assert main(["list", "topologies"]) == ExitCode.NOTHING_VERIFIED
    err = capsys.readouterr().err
    assert "internal error" in err
    assert "ZeroDivisionError" in err
    assert "pa55word" not in err


def test_a_reader_that_leaves_is_no_error() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "harness", "list"],
        env={**os.environ, "PYTHONPATH": str(places.SHIPPED)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    process.stdout.close()
    assert process.stderr
    with process.stderr:
        assert process.stderr.read() == ""
    assert process.wait() == ExitCode.OK


# --- help and versions --------------------------------------------------------------------------------------


@each_row("name", COMMANDS)
def test_every_command_has_examples_that_are_understood(name: str) -> None:
    command = COMMANDS[name]
    assert isinstance(command, Command)
    assert command.examples
    for example in command.examples:
        if not example.startswith("eval"):
            words = shlex.split(example.partition(" | ")[0].partition(" > ")[0])
            assert words[0] == "harness"
            assert " ".join(words[1:]).startswith(name)
            parameters = parse(words[1:]).params
            assert set(parameters.get("checks", ())) <= {check.id for check in catalogue().checks}
            assert parameters.get("under") in {None, True, False, *(one.name for one in catalogue().controls)}


@each_row("name", COMMANDS)
def test_every_option_and_argument_is_explained(name: str) -> None:
    for parameter in COMMANDS[name].params:
        assert getattr(parameter, "help", None), parameter.name


def test_the_help_text_lists_commands_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == ExitCode.OK
    out = capsys.readouterr().out
    assert [name for name in root.commands if not re.search(rf"^  {name} ", out, re.MULTILINE)] == []
    assert [code for code in ExitCode if not re.search(rf"^  {int(code)} ", out, re.MULTILINE)] == []


def test_the_help_text_of_a_command_has_sections(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--help"]) == ExitCode.OK
    headings = re.findall(r"^(\w.*):$", capsys.readouterr().out, re.MULTILINE)
    assert headings == [
        *(
            "Positional arguments",
            "Selection",
            "Comparison",
            "Engine",
            "Load",
            "Images",
            "Audit trail",
            "Evidence",
            "Files",
            "Output",
        ),
        *("Other options", "Examples"),
    ]


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_has_a_short_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*name.split(), "-h"]) == ExitCode.OK
    short = capsys.readouterr().out
    assert main([*name.split(), "--help"]) == ExitCode.OK
    assert short == capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "hidden"),
    [
        (["list", "--reports", "x"], {"--reports"}),
        (["exec", "direct", "--strict", "--jobs", "2", "--", "true"], {"--strict", "--jobs"}),
    ],
)
def test_options_without_an_effect_are_accepted_and_hidden(
    arguments: list[str], hidden: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    parse(arguments)
    assert main([arguments[0], "--help"]) == ExitCode.OK
    assert hidden & set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) == set()


def test_the_version_names_the_code_and_what_it_runs_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == ExitCode.OK
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert list(lines) == ["pooler-harness", "commit", "fingerprint", "Python", "psycopg"]
    assert lines["fingerprint"] == fingerprint()
    assert lines["Python"] == ".".join(map(str, sys.version_info[:3]))


def document(name: str = "command-line.md") -> str:
    if not (places.SHIPPED / "pyproject.toml").exists():
        pytest.skip("not a checkout")
    return (places.SHIPPED / "docs" / name).read_text(encoding="utf-8")


def test_the_documents_name_every_command_option_exit_code_and_variable() -> None:
    text, options = document(), document("reference/commands.md")
    assert {name for name in COMMANDS if f"`harness {name}" not in text} == set()
    named = {name for command in COMMANDS.values() for parameter in command.params for name in option_names(parameter)}
    assert named - set(re.findall(r"(?<=[` ])--?[a-z][a-z-]*", options)) == set()
    assert {code for code in ExitCode if f"\n| {int(code)} |" not in document("reference.md")} == set()
    source = "".join(path.read_text(encoding="utf-8") for path in (places.PACKAGE / "cli").glob("*.py"))
    assert {name for name in re.findall(r"HARNESS_[A-Z_]+", source) if f"`{name}`" not in text} == set()


def test_every_command_line_of_the_document_is_understood() -> None:
    blocks = re.findall(r"```sh\n(.*?)```", document(), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("harness ")]
    assert lines
    for line in lines:
        parse(shlex.split(line.partition(" | ")[0], comments=True)[1:])


# --- parsing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["--from", "a", "b", "c", "--strict"],
        ["--strict", "--from", "a", "b", "c"],
        ["--from=a", "b", "--from", "c", "--strict"],
        ["--from", "a", "--from", "b", "--strict", "--from", "c"],
    ],
)
def test_from_takes_several_folders(arguments: list[str]) -> None:
    parameters = parse(["report", *arguments]).params
    assert parameters["folders"] == ("a", "b", "c")
    assert parameters["strict"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["transaction", "--engine", "native", "--junit", "*.xml", "--", "mix", "test", "--cover", "--from", "a", "b"],
        ["--junit=*.xml", "transaction", "--engine=native", "--", "mix", "test", "--cover", "--from", "a", "b"],
    ],
)
def test_words_after_the_dashes_belong_to_the_command(arguments: list[str]) -> None:
    parameters = parse(["exec", *arguments]).params
    assert parameters["topology"] == "transaction"
    assert parameters["junit"] == ("*.xml",)
    assert parameters["engine"] == "native"
    assert parameters["command_line"] == ("mix", "test", "--cover", "--from", "a", "b")


def test_negative_numbers_are_values() -> None:
    assert parse(["audit", "purge", "--keep-days", "-1"]).params["keep_days"] == -1


def test_options_are_not_abbreviated() -> None:
    with pytest.raises(click.NoSuchOption):
        parse(["verify", "--topologies", "x"])


# --- reports and lists --------------------------------------------------------------------------------------


def test_from_a_folder_without_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--from", str(tmp_path)]) == ExitCode.NOTHING_VERIFIED
    assert "no run folder here" in capsys.readouterr().err


def test_a_report_of_nothing_is_one_sentence_and_exit_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report"]) == ExitCode.NOTHING_VERIFIED
    out, err = capsys.readouterr()
    assert out == ""
    left_out = "note: the tables leave out what no run of this code was asked for: all rows of"
    assert f"{left_out} {', '.join(DEFAULT)}; pgagroal, pgpool, on demand only (" in err
    assert (tmp_path / "reports" / "report.md").exists()


def test_the_matrix_has_a_job_for_each_topology(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["matrix"]) == ExitCode.OK
    assert [job["topology"] for job in json.loads(capsys.readouterr().out)["include"]] == DEFAULT
    assert main(["matrix", "--all"]) == ExitCode.OK
    assert [job["topology"] for job in json.loads(capsys.readouterr().out)["include"]] == list(load_topologies())


def test_the_matrix_expands_versions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["matrix", "--set", "postgres=15,17", "--set", "pgbouncer=1.18", "--set", "pgbouncer=1.24"]) == 0
    jobs = {job["environment"]: job for job in json.loads(capsys.readouterr().out)["include"]}
    assert jobs["direct+postgres-15"]["arguments"] == "--set postgres=15"
    assert jobs["transaction"]["arguments"] == "--set postgres=17 --set pgbouncer=1.24"
    assert jobs["transaction+postgres-15+pgbouncer-1.18"]["pooler"] == "pgbouncer 1.18"
    assert main(["matrix", "--set", "postgres=15,"]) == ExitCode.USAGE
    assert "expected PRODUCT=VERSION" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["--set", "postgres=15"], ["--all"]])
def test_the_command_of_a_job_is_understood(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["matrix", *arguments]) == ExitCode.OK
    for job in json.loads(capsys.readouterr().out)["include"]:
        words = job["command"].split()
        assert words[:3] == ["python", "-m", "harness"]
        assert parse(words[3:]).params["topologies"] == (job["topology"],)


def test_the_list_of_topologies_marks_those_on_demand(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "topologies"]) == ExitCode.OK
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if not line.endswith("(on demand)")] == DEFAULT


def test_lists_are_readable_by_machines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "checks", "--json"]) == ExitCode.OK
    checks = json.loads(capsys.readouterr().out)
    assert all(check["controls"] for check in checks)


OWN = """
[environments.staging]
dsn = "env:STAGING_URL"
base_url = "https://staging.example.org"
canary = "public.audit_canary(note)"
[[environments.staging.callers]]
actor = { type = "user", id = "41" }
headers = { authorization = "Bearer env:TOKEN_OF_41" }

[[paths]]
name = "create-post"
title = "POST /api/posts"
kind = "HTTP"
[[paths.steps]]
path = "/api/posts"
json = { slug = "{unique}" }
status = 201
[paths.expect]
table = "public.posts"
operation = "insert"
where = { slug = "{unique}" }

[[commands]]
name = "api-tests"
title = "the tests of the API pass"
command = ["pytest"]
topologies = ["transaction"]
"""


def test_lists_have_the_commands_and_paths_of_the_project(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "harness.toml").write_text(OWN)
    assert main(["list", "--json"]) == ExitCode.OK
    listed = json.loads(capsys.readouterr().out)
    checks = {check["name"]: check for check in listed["checks"]}
    assert checks["command.api-tests"]["summary"] == "the tests of the API pass"
    assert checks["command.api-tests"]["controls"]
    assert "path.create-post" in checks
    assert {"command", "path"} <= {suite["name"] for suite in listed["suites"]}


def test_the_matrix_has_the_commands_and_paths_of_the_project(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "harness.toml").write_text(OWN)
    assert main(["matrix", "--environments"]) == ExitCode.OK
    jobs = {job["environment"]: job for job in json.loads(capsys.readouterr().out)["include"]}
    assert jobs["transaction"]["commands"] == "api-tests"
    assert jobs["direct"]["commands"] == ""
    assert jobs["staging"]["paths"] == "create-post"
    assert jobs["staging"]["command"] == "python -m harness verify --environment staging"
    (tmp_path / "harness.toml").write_text(OWN.replace('["transaction"]', '["transacton"]'))
    assert main(["matrix"]) == ExitCode.USAGE
    assert "did you mean transaction" in capsys.readouterr().err


# --- plans --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["verify", "prove"])
def test_a_dry_run_prints_the_plan_and_runs_nothing(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "session", "--dry-run"]) == ExitCode.OK
    out = capsys.readouterr().out
    assert "session      actor.moved-connection  N/A: a client keeps one server connection" in out
    assert not (tmp_path / "reports").exists()


def test_a_topology_without_a_planned_row_is_not_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "harness.toml").write_text(OWN)
    chosen: list[Selection] = []

    class NoEngineError(Exception):
        pass

    def choose(*_: object) -> NoReturn:
        raise NoEngineError

    def run(invocation: Invocation, selection: Selection) -> NoReturn:
        chosen.append(selection)
        running.run_selection(invocation, selection)
        raise AssertionError

    monkeypatch.setattr("harness.cli.verify.run_selection", run)
    monkeypatch.setattr(running, "choose", choose)
    main(["verify", "direct", "transaction", "session", "--check", "command.api-tests"])
    [selection] = chosen
    assert [topology.name for topology in selection.topologies] == ["transaction"]
    assert "not started, because no selected check runs there: direct, session\n" in capsys.readouterr().err


def test_a_command_that_reproduces_a_row_names_only_products_of_its_topology(tmp_path: Path) -> None:
    (tmp_path / "harness.toml").write_text('[images]\noverride = { pgpool = "mirror/pgpool:4" }\n')
    settings = read_settings(SettingsOptions(versions=("postgres=15", "pgbouncer=1.18")))
    plan = select_rows(settings, ["direct", "transaction"], [], ["capture.insert"]).plan(settings)
    given = [row.reproduce.partition("--check capture.insert")[2] for row in plan]
    assert given == [" --set postgres=15", " --set postgres=15 --set pgbouncer=1.18"]


def test_a_command_that_reproduces_a_row_names_the_load_options_that_its_check_uses() -> None:
    settings = read_settings(SettingsOptions(rounds=3, soak_s=5.0))
    checks = ("resilience.server-killed", "resilience.jobs-queued", "soak.mix")
    rows = select_rows(settings, ["direct"], [], checks).plan(settings)
    given = {row.check: row.reproduce.partition(f"--check {row.check}")[2] for row in rows}
    assert given == {
        "resilience.server-killed": " --rounds 3",
        "resilience.jobs-queued": "",
        "soak.mix": " --for 5s",
    }


def test_a_row_that_is_not_safe_in_an_environment_is_not_owed(
    tmp_path: Path,
) -> None:
    (tmp_path / "harness.toml").write_text(OWN)
    settings = read_settings()
    rows = plan_environment("staging", settings.catalogue.checks, settings)
    safety = {check.id: check.environment_safety for check in settings.catalogue.checks}
    assert {row.owed for row in rows if safety[row.check] is Safety.NO} == {False}
    owed = {row.check for row in rows if row.owed}
    assert {"environment.canary-attributed", "path.create-post", "path.create-post-repeated"} <= owed
    # the path declares no failing variant, so only a broken server would make it fail
    assert not {"path.create-post-failure", "path.create-post-no-trigger"} & owed
    assert all(row.owed for row in select_rows(settings, ["direct"], [], []).plan(settings))


def test_a_dry_run_under_a_control_names_it(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--check", "capture.insert", "--under", "insert-trigger-disabled", "--dry-run"]
    assert main(["verify", "direct", *arguments]) == ExitCode.OK
    assert capsys.readouterr().out == "direct       capture.insert  under insert-trigger-disabled\n"


@pytest.mark.parametrize("command", ["verify", "prove"])
def test_a_selection_that_runs_nowhere_is_a_usage_error(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "harness.toml").write_text(OWN)
    assert main([command, "direct", "--check", "command.api-tests"]) == ExitCode.USAGE
    assert "no selected check runs in these topologies" in capsys.readouterr().err


def test_a_dry_run_of_an_environment_says_what_each_row_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "harness.toml").write_text(OWN)
    assert main(["verify", "--environment", "staging", "--dry-run"]) == ExitCode.OK
    out, err = capsys.readouterr()
    [variables] = re.findall(r"^warning: environment staging needs .* not set: (.*); export", err, re.MULTILINE)
    for variable in variables.split(", "):
        monkeypatch.setenv(variable, "x")
    assert main(["verify", "--environment", "staging", "--dry-run"]) == ExitCode.OK
    assert "warning" not in capsys.readouterr().err
    assert re.search(r"^staging      path\.create-post  runs a declared path$", out, re.MULTILINE)
    assert re.search(r"^and \d+ more: Not run: not safe in an environment that others use$", out, re.MULTILINE)
    assert not (tmp_path / "reports").exists()


# --- settings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["known_issues", "quarantine"])
@pytest.mark.parametrize("arguments", [["verify", "mine", "--topologies-folder", "other"], ["verify", "direct"]])
def test_an_entry_names_a_topology_of_either_folder_or_an_environment(
    key: str, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("STAGING_URL", "TOKEN_OF_41"):
        monkeypatch.setenv(variable, "x")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.toml").write_text((places.TOPOLOGIES / "direct.toml").read_text())
    entry = f'[[{key}]]\ncheck = "actor.unset"\nlink = "https://example.org/1"\nowner = "ada"\nexpires = "2099-01-01"\n'
    file = tmp_path / "harness.toml"
    file.write_text(f'{OWN}{entry}topologies = ["transaction", "session+isolated", "staging"]\n')
    environment = ["verify", "--environment", "staging"]
    for command in (arguments, environment):
        assert main([*command, "--dry-run"]) == ExitCode.OK, capsys.readouterr().err
    file.write_text(f'{OWN}{entry}topologies = ["transactoin"]\n')
    for command in (arguments, environment):
        assert main([*command, "--dry-run"]) == ExitCode.USAGE
        expected = f"{key}: the entry for actor.unset: unknown topology or environment 'transactoin'"
        assert expected in capsys.readouterr().err


def test_known_issues_need_all_their_parts_and_expire(tmp_path: Path) -> None:
    entry = '[[known_issues]]\ncheck = "actor.unset"\nlink = "https://example.org/1"\nowner = "ada"\nexpires = "2026-06-30"\n'
    path = tmp_path / "harness.toml"
    path.write_text(entry)
    settings = read_settings(today="2026-06-30")
    assert settings.known_issues[0].owner == "ada"
    with pytest.raises(ConfigError, match="expired on 2026-06-30"):
        read_settings(today="2026-07-01")
    path.write_text(entry.replace("2026-06-30", "2026-02-30"))
    with pytest.raises(ConfigError, match="invalid date '2026-02-30', expected YYYY-MM-DD"):
        read_settings(today="2026-01-01")
    path.write_text(entry.replace("actor.unset", "actor.unst"))
    with pytest.raises(ConfigError, match=r"unknown check 'actor\.unst'"):
        read_settings(today="2026-01-01")
    path.write_text(entry.replace('link = "https://example.org/1"\n', ""))
    with pytest.raises(ConfigError, match="link: missing key"):
        read_settings(today="2026-01-01")


def test_the_command_line_beats_the_environment_beats_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "harness.toml").write_text('engine = "native"\n[images]\nprefix = "file/"\n')
    assert read_settings().engine == "native"
    monkeypatch.setenv("HARNESS_ENGINE", "docker")
    monkeypatch.setenv("HARNESS_IMAGE_PREFIX", "environment/")
    assert read_settings().engine == "docker"
    given = read_settings(SettingsOptions(engine="auto", image_prefix="line/", images=("postgres=mine:1",)))
    assert (given.engine, given.images.prefix, given.images.override) == ("auto", "line/", {"postgres": "mine:1"})
    monkeypatch.setenv("HARNESS_ENGINE", "podman")
    with pytest.raises(HarnessError, match="HARNESS_ENGINE: found 'podman'"):
        read_settings()


@pytest.mark.parametrize(
    ("statement", "message"),
    [("done", "text of 20 to 400 characters"), ("x" * 30, "expected one sentence that says what was done")],
)
def test_an_attestation_has_to_say_what_was_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], statement: str, message: str
) -> None:
    (tmp_path / "harness.toml").write_text(
        f'[[attestations]]\nitem = "backups-agree-with-retention"\nby = "ada"\non = "2026-01-01"\n'
        f'statement = "{statement}"\nlink = "docs/restore.md"\n'
    )
    assert main(["list", "suites"]) == ExitCode.USAGE
    assert message in capsys.readouterr().err


def test_an_attestation_is_not_signed_in_the_future(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "harness.toml").write_text(
        '[[attestations]]\nitem = "backups-agree-with-retention"\nby = "ada"\non = "2999-01-01"\n'
        'statement = "restored last night\'s backup on staging"\nlink = "docs/restore.md"\n'
    )
    assert main(["list", "suites"]) == ExitCode.USAGE
    assert "signed on 2999-01-01, which is in the future" in capsys.readouterr().err


def test_a_topology_verifies_known_suites_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.toml").write_text('summary = "s"\nverify = ["poolling"]\n[postgres]\nversion = "17"\n')
    assert main(["verify", "mine", "--dry-run", "--topologies-folder", str(tmp_path)]) == ExitCode.USAGE
    err = capsys.readouterr().err
    assert "mine.toml" in err
    assert "did you mean pooling" in err


def test_documented_behaviour_of_an_unknown_feature_is_an_error_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "behaviour").mkdir()
    (tmp_path / "behaviour" / "pgbouncer.toml").write_text(
        'seen = ["1"]\n[[behaviour]]\nfeatures = ["seting-kept"]\noutcome = "lost"\nsource = "https://example.org"\n'
    )
    monkeypatch.setattr("harness.places.TOPOLOGIES", tmp_path)
    assert main(["list", "suites"]) == ExitCode.USAGE
    assert "unknown feature 'seting-kept'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["postgresql://app:pa@ss@127.0.0.1:1/x"], "write %40 for @"),
        (["host=127.0.0.1 port=1 user=app dbname=x", "--declared", "version=abc"], "expected a number"),
        (["--most-connections", "1"], "from 3 to 100"),
        (["not a connection string"], "invalid connection string"),
    ],
)
def test_what_cannot_be_identified_is_one_clear_error(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["identify", *arguments]) in {ExitCode.USAGE, ExitCode.NOTHING_VERIFIED}
    err = capsys.readouterr().err
    assert message in err
    assert "ss@127" not in err
    assert "Traceback" not in err


# --- completion ---------------------------------------------------------------------------------------------


def completed(line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> set[str]:
    """Return what bash completes the last word of a line to."""
    words = line.split(" ")
    monkeypatch.setattr(sys, "argv", [f"/usr/bin/{words[0]}"])
    monkeypatch.setenv(f"_{words[0].upper().replace('-', '_')}_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    assert main([]) == ExitCode.OK
    return {found.partition(",")[2] for found in capsys.readouterr().out.splitlines() if found}


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("ver", {"verify"}),
        ("verify sess", {"session"}),
        ("verify --suite act", {"actor"}),
        ("verify --check actor.many-c", {"actor.many-clients"}),
        ("verify --check capture.insert --under insert-t", {"insert-trigger-disabled"}),
        ("verify --environment ", {"staging"}),
        ("verify --check command.", {"command.api-tests"}),
        ("verify --engine n", {"native"}),
        ("verify --env", {"--environment"}),
        ("list to", {"topologies"}),
        ("audit inst", {"install"}),
        ("report --audit-target sess", {"session-setting"}),
        ("verify --job-engine absu", {"absurd"}),
        ("verify --job-engine oban --variant ", {"default", "pooler"}),
        ("jobs try pg-boss --variant l", {"listen"}),
    ],
)
def test_names_are_completed(
    script: str,
    line: str,
    names: set[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "harness.toml").write_text(OWN)
    assert completed(f"{script} {line}", monkeypatch, capsys) == names


def test_topologies_of_another_folder_are_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.toml").write_text('summary = "s"\n[postgres]\nversion = "17"\n')
    assert completed(f"harness verify --topologies-folder {tmp_path} m", monkeypatch, capsys) == {"mine"}


def test_a_broken_project_file_completes_to_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "harness.toml").write_text("engine = 3")
    assert completed("harness verify --check capture.ins", monkeypatch, capsys) == set()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_both_names(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion"]) == ExitCode.OK
    assert f"harness completion {shell}" in capsys.readouterr().out
    assert main(["completion", shell]) == ExitCode.OK
    script = capsys.readouterr().out
    assert f"_HARNESS_COMPLETE={shell}_complete" in script
    assert f"_POOLER_HARNESS_COMPLETE={shell}_complete" in script


# --- watching a control -------------------------------------------------------------------------------------

AT = next(control.at for control in catalogue().controls if control.name == "insert-trigger-disabled")


def under(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: Status, *expectations: tuple[str, bool]
) -> tuple[int, StoredRun]:
    """Run `verify --under` with a made-up answer, and return its exit code and what was stored."""
    answer = replace(
        result("direct", "capture.insert", status, "" if status is Status.OK else "why"),
        expectations=tuple(
            Expectation(name=name, expected="1", observed="1" if held else "0", held=held)
            for name, held in expectations
        ),
    )
    written = replace(record(), plan=record().plan[:1], under="insert-trigger-disabled")
    run = store_run(tmp_path / "reports" / "under", [answer], written)
    monkeypatch.setattr("harness.cli.under.run_selection", lambda *_, **__: run)
    return main(["verify", "direct", "--check", "capture.insert", "--under", "insert-trigger-disabled"]), run


@pytest.mark.parametrize(
    ("status", "expectations", "code", "sentence"),
    [
        (Status.ISSUE, [(AT, False)], ExitCode.OK, f"the control turned the check to Issue at '{AT}'"),
        (Status.ISSUE, [(AT, True), ("other", False)], ExitCode.ISSUE, "the check turned to Issue elsewhere"),
        (Status.OK, [(AT, True)], ExitCode.ISSUE, "the check stayed OK"),
        (Status.NA, [], ExitCode.NOTHING_VERIFIED, "why"),
        (Status.NOT_RUN, [], ExitCode.NOTHING_VERIFIED, "why"),
    ],
)
def test_a_control_succeeds_where_it_turns_its_expectation(
    status: Status,
    expectations: list[tuple[str, bool]],
    code: ExitCode,
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert under(tmp_path, monkeypatch, status, *expectations)[0] == code
    first, *others = capsys.readouterr().out.splitlines()
    assert first.startswith(f"direct       {status} capture.insert under insert-trigger-disabled: ")
    assert sentence in first
    assert len(others) == len(expectations)
    for line, (name, held) in zip(others, expectations, strict=True):
        assert line.split()[0] == ("held" if held else "broken")
        assert name in line
        assert f"expected 1, observed {int(held)}" in line
        assert ("(named by the control)" in line) == (name == AT)


def test_a_run_under_a_control_is_no_evidence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, run = under(tmp_path, monkeypatch, Status.ISSUE, (AT, False))
    assert not (tmp_path / "reports" / "report.md").exists()
    settings = read_settings()
    assert {row.status for row in evidence_here(settings).rows} == {Status.NOT_RUN}
    merged = evidence_from(settings, [str(tmp_path / "reports")])
    assert {row.status for row in merged.rows} == {Status.NOT_RUN}
    assert f"run {run.record.run_id} is left out: it ran under the control insert-trigger-disabled" in merged.left_out


def declares(folder: Path, **changed: object) -> Topology:
    """Write a topology file `transaction.toml` into a folder, and return what it declares."""
    folder.mkdir(exist_ok=True)
    text = (places.TOPOLOGIES / "transaction.toml").read_text()
    for name, value in changed.items():
        text = re.sub(rf"^{name} = .*$", f"{name} = {value}", text, flags=re.MULTILINE)
    (folder / "transaction.toml").write_text(text)
    return load_topologies(folder)["transaction"]


def run_of(reports: Path, declared: Topology, folder: str, number: int = 1) -> StoredRun:
    """Store a run of one row in a topology that was read from a folder."""
    settings = read_settings()
    row = next(row for row in expected_rows(settings) if row.check == "capture.insert")
    found = replace(result("direct", "capture.insert"), target=declared.name)
    written = replace(
        record(f"20260101T000000Z-0000000{number}", fingerprint=fingerprint()),
        audit_target=settings.target.identity,
        plan=(replace(row, target=declared.name),),
        topologies={declared.name: replace(stood(declared.name.partition("+")[0]), declared=declared)},
        topologies_folder=folder,
    )
    return store_run(reports, [found], written)


def test_the_report_of_a_run_with_its_own_topologies_or_versions_is_that_of_report_afterwards(tmp_path: Path) -> None:
    reports, mine = tmp_path / "reports", tmp_path / "mine"
    run_of(reports, declares(mine, default_pool_size=7), str(mine))
    run_of(reports, with_versions(load_topologies()["session"], {"postgres": "15"}), "", 2)
    options = SettingsOptions(reports=str(reports), topologies_folder=str(mine), versions=("postgres=15",))
    at_the_end, afterwards = read_settings(options).of_project, read_settings(SettingsOptions(reports=str(reports)))
    assert evidence_here(at_the_end) == evidence_here(afterwards)
    report = report_of(evidence_here(afterwards), afterwards)
    assert list(report.counts) == ["transaction", "session+postgres-15"]
    assert {counted.ok for counted in report.counts.values()} == {1}


def test_a_topology_file_in_another_folder_that_has_changed_is_left_out(tmp_path: Path) -> None:
    reports, mine = tmp_path / "reports", tmp_path / "mine"
    run_of(reports, declares(mine, default_pool_size=7), str(mine))
    declares(mine, default_pool_size=8)
    left_out = evidence_here(read_settings(SettingsOptions(reports=str(reports)))).left_out
    assert left_out[0].endswith(
        "is left out for transaction: its topology file has changed since, or a newer run read another one"
    )


def test_two_topologies_of_the_same_name_in_two_folders_never_mix(tmp_path: Path) -> None:
    reports, mine = tmp_path / "reports", tmp_path / "mine"
    run_of(reports, load_topologies()["transaction"], "")
    newer = declares(mine, default_pool_size=7)
    run_of(reports, newer, str(mine), 2)
    evidence = evidence_here(read_settings(SettingsOptions(reports=str(reports))))
    assert evidence.topologies["transaction"].declared == newer
    assert [record.run_id for record in evidence.shown] == ["20260101T000000Z-00000002"]


def test_the_file_behind_another_version_counts_too(tmp_path: Path) -> None:
    reports, mine = tmp_path / "reports", tmp_path / "mine"
    run_of(reports, with_versions(declares(mine), {"postgres": "15"}), str(mine))
    settings = read_settings(SettingsOptions(reports=str(reports)))
    assert "transaction+postgres-15" in evidence_here(settings).topologies
    declares(mine, default_pool_size=8)
    assert "transaction+postgres-15" not in evidence_here(settings).topologies


def test_runs_of_other_code_are_counted_in_one_sentence(tmp_path: Path) -> None:
    reports = tmp_path / "reports"
    for number in (1, 2):
        store_run(reports, [], record(f"20260101T000000Z-0000000{number}", fingerprint="other"))
    [sentence, *_] = evidence_here(read_settings(SettingsOptions(reports=str(reports)))).left_out
    assert sentence.startswith(
        f"2 runs of other harness code are left out of {reports / 'runs'}; this code is version "
    )


def test_runs_from_elsewhere_of_other_code_are_left_out_and_explained(tmp_path: Path) -> None:
    run = store_run(tmp_path / "elsewhere", [result("direct", "capture.insert")], record(fingerprint="other"))
    merged = evidence_from(read_settings(), [str(tmp_path / "elsewhere")])
    assert {row.status for row in merged.rows} == {Status.NOT_RUN}
    sentence, rest = merged.left_out
    assert rest.startswith("the tables leave out what no run of this code was asked for: all rows of direct, ")
    assert sentence.startswith(f"run {run.record.run_id} is left out: it ran other harness code (version 0.1.0, commit")
    assert f"fingerprint {fingerprint()}); check out that code to read it" in sentence


def test_runs_from_elsewhere_of_this_code_on_another_python_count(tmp_path: Path) -> None:
    there = record(fingerprint=fingerprint("3.99.1", "3.98"))
    there = replace(
        there,
        provenance=replace(there.provenance, python="3.99.1", psycopg="3.98"),
        audit_target=read_settings().target.identity,
        plan=tuple(row for row in expected_rows(read_settings()) if row.target == "direct"),
    )
    store_run(tmp_path / "elsewhere", [result("direct", "capture.insert")], there)
    merged = evidence_from(read_settings(), [str(tmp_path / "elsewhere")])
    assert Status.OK in {row.status for row in merged.rows}
    [rest] = merged.left_out
    assert rest.startswith("the tables leave out what no run of this code was asked for: all rows of peered, ")


def _run_with_closed_stdout(folder: Path, *arguments: str) -> int:
    """Run the command line with a stdout whose reader has left."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        return subprocess.run(
            [sys.executable, "-m", "harness", *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(places.PACKAGE.parent)},
            stdout=writing,
            stderr=subprocess.DEVNULL,
            check=False,
        ).returncode
    finally:
        os.close(writing)


def test_a_reader_that_left_changes_no_exit_code(tmp_path: Path) -> None:
    """`pipefail` in CI must see the finding, as in `harness lint FILE | head -1`."""
    (tmp_path / "bad.md").write_text("| P | ID | Symptom |\n|---|---|---|\n| P9 | x | y |\n")
    assert main(["lint", str(tmp_path / "bad.md")]) == 1
    assert _run_with_closed_stdout(tmp_path, "lint", "bad.md") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_prose_that_cannot_be_printed_changes_no_exit_code(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "harness", "nope"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(places.PACKAGE.parent)},
            stderr=full,
            check=False,
        )
    assert done.returncode == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [(f"jobs = {'9' * 5000}", "invalid TOML"), (f"jobs = 0x{'f' * 5000}", "jobs: found a very large number")],
)
def test_a_number_of_thousands_of_digits_is_one_clear_error(
    content: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "harness.toml").write_text(content)
    assert main(["list"]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err


def test_a_project_file_that_cannot_be_a_file_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "harness.toml")
    assert main(["list"]) == 2
    assert "expected a regular file" in capsys.readouterr().err
    (tmp_path / "harness.toml").unlink()
    (tmp_path / "harness.toml").symlink_to("nowhere.toml")
    assert main(["list"]) == 2


def test_a_byte_order_mark_is_not_part_of_the_project_file(tmp_path: Path) -> None:
    (tmp_path / "harness.toml").write_bytes(b"\xef\xbb\xbfjobs = 2\n")
    assert read_settings().jobs == 2
