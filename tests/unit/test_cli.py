from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from harness.cli.main import main
from harness.cli.settings import read_settings
from harness.errors import ConfigError, HarnessError
from harness.lab.topologies import load_topologies, select

if TYPE_CHECKING:
    from pathlib import Path

#: what runs when no topology is named
DEFAULT = [each.name for each in select(load_topologies(), [])]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("HARNESS_ENGINE", "HARNESS_PULL", "HARNESS_REPORTS", "HARNESS_IMAGE_PREFIX"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["verify", "transacton"], "did you mean transaction"),
        (["verify", "--check", "actor.many-client"], "did you mean actor.many-clients"),
        (["verify", "--suite", "actors"], "did you mean actor?"),
        (["verify", "--jobs", "0"], "whole number from 1"),
        (["verify", "--engine", "podman"], "invalid choice"),
        (["verify", "--set", "postgres"], "needed NAME=VALUE"),
        (["verify", "--set", "postgres=12"], "there is no postgres 12"),
        (["list", "things"], "there is no list of 'things'"),
        (["frobnicate"], "invalid choice"),
        ([], "required"),
        (["report", "--complete", "--from", "x"], "choose one"),
        (["verify", "--topologies-folder", "nowhere"], "no such folder"),
        (["verify", "--image", "postgress=x"], "did you mean postgres"),
        (["verify", "--reports", ""], "needed a folder"),
        (["report", "--from", ""], "needed a folder"),
        (["report", "--fresh"], "--complete"),
    ],
)
def test_bad_usage_is_one_clear_error_and_exit_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""


def test_from_a_folder_without_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--from", str(tmp_path)]) == 3
    assert "no run folder here" in capsys.readouterr().err


def test_a_report_of_nothing_is_not_run_everywhere_and_exit_3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report"]) == 3
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()] == DEFAULT
    assert all("ok=0 issue=0 na=0 not_run=" in line for line in out.splitlines())
    assert (tmp_path / "reports" / "report.md").exists()


def test_an_unwritable_reports_folder_ends_before_any_server_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["verify", "direct", "--reports", "file/reports"]) == 3
    err = capsys.readouterr().err
    assert "cannot be written" in err
    assert "--reports" in err


def test_the_matrix_has_a_job_for_each_topology(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["matrix"]) == 0
    assert [job["topology"] for job in json.loads(capsys.readouterr().out)["include"]] == DEFAULT
    assert main(["matrix", "--all"]) == 0
    assert [job["topology"] for job in json.loads(capsys.readouterr().out)["include"]] == list(load_topologies())


def test_the_matrix_expands_versions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["matrix", "--set", "postgres=15,17", "--set", "pgbouncer=1.18", "--set", "pgbouncer=1.24"]) == 0
    jobs = {job["environment"]: job for job in json.loads(capsys.readouterr().out)["include"]}
    assert jobs["direct+postgres-15"]["arguments"] == "--set postgres=15"
    assert jobs["transaction"]["arguments"] == "--set postgres=17 --set pgbouncer=1.24"
    assert jobs["transaction+postgres-15+pgbouncer-1.18"]["pooler"] == "pgbouncer 1.18"
    assert main(["matrix", "--set", "postgres=15,"]) == 2
    assert "needed PRODUCT=VERSION" in capsys.readouterr().err


def test_lists_are_readable_by_machines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "checks", "--json"]) == 0
    checks = json.loads(capsys.readouterr().out)
    assert all(each["controls"] for each in checks)


def test_a_dry_run_prints_the_plan_and_runs_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "session", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "session      actor.moved-connection  N/A: a client keeps one server connection" in out
    assert not (tmp_path / "reports").exists()


def arguments(**given: object) -> object:
    return type("Arguments", (), given)()


def test_known_issues_need_all_their_parts_and_expire(tmp_path: Path) -> None:
    entry = '[[known_issues]]\ncheck = "actor.unset"\nlink = "https://example.org/1"\nowner = "ada"\nexpires = "2026-06-30"\n'
    path = tmp_path / "harness.toml"
    path.write_text(entry)
    settings = read_settings(arguments(), today="2026-06-30")  # type: ignore[arg-type]
    assert settings.known_issues[0].owner == "ada"
    with pytest.raises(ConfigError, match="expired on 2026-06-30"):
        read_settings(arguments(), today="2026-07-01")  # type: ignore[arg-type]
    path.write_text(entry.replace('link = "https://example.org/1"\n', ""))
    with pytest.raises(ConfigError, match="link: missing key"):
        read_settings(arguments(), today="2026-01-01")  # type: ignore[arg-type]


def test_the_command_line_beats_the_environment_beats_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "harness.toml").write_text('engine = "native"\n[images]\nprefix = "file/"\n')
    assert read_settings(arguments()).engine == "native"  # type: ignore[arg-type]
    monkeypatch.setenv("HARNESS_ENGINE", "docker")
    monkeypatch.setenv("HARNESS_IMAGE_PREFIX", "environment/")
    assert read_settings(arguments()).engine == "docker"  # type: ignore[arg-type]
    given = read_settings(arguments(engine="auto", image_prefix="line/", image=["postgres=mine:1"]))  # type: ignore[arg-type]
    assert (given.engine, given.images.prefix, given.images.override) == ("auto", "line/", {"postgres": "mine:1"})
    monkeypatch.setenv("HARNESS_ENGINE", "podman")
    with pytest.raises(HarnessError, match="HARNESS_ENGINE: found 'podman'"):
        read_settings(arguments())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("statement", "said"),
    [("done", "text of 20 to 400 characters"), ("x" * 30, "needed one sentence that says what was done")],
)
def test_what_is_signed_has_to_say_something(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], statement: str, said: str
) -> None:
    (tmp_path / "harness.toml").write_text(
        f'[[attestations]]\nitem = "backups-agree-with-retention"\nby = "ada"\non = "2026-01-01"\n'
        f'statement = "{statement}"\nlink = "docs/restore.md"\n'
    )
    assert main(["list", "suites"]) == 2
    assert said in capsys.readouterr().err


def test_a_topology_cannot_be_verified_with_what_there_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.toml").write_text('summary = "s"\nverify = ["poolling"]\n[postgres]\nversion = "17"\n')
    assert main(["verify", "mine", "--dry-run", "--topologies-folder", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert "mine.toml" in err
    assert "did you mean pooling" in err


def test_what_is_documented_of_no_feature_is_told_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "behaviour").mkdir()
    (tmp_path / "behaviour" / "pgbouncer.toml").write_text(
        '[[behaviour]]\nfeatures = ["seting-kept"]\noutcome = "lost"\nsource = "https://example.org"\n'
    )
    monkeypatch.setattr("harness.places.TOPOLOGIES", tmp_path)
    assert main(["list", "suites"]) == 2
    assert "unknown feature 'seting-kept'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["postgresql://app:pa@ss@127.0.0.1:1/x"], "write %40 for @"),
        (["host=127.0.0.1 port=1 user=app dbname=x", "--declared", "version=abc"], "needed a number"),
        (["--most-connections", "1"], "from 3 to 100"),
        (["not a connection string"], "invalid connection string"),
    ],
)
def test_what_cannot_be_identified_is_one_clear_error(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert main(["identify", *arguments]) in {2, 3}
    err = capsys.readouterr().err
    assert said in err
    assert "ss@127" not in err
    assert "Traceback" not in err
