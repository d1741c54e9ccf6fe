"""docs/job-engines.md describes every case, claim, command, setting and call of job engines, and shows whole programs."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

from harness import config
from harness.checks.judges import jobs
from harness.checks.judges.job_words import SHORT
from harness.job_engines.target_file import NEEDS, Case, Commands, JobEngineFile, JobFeature, Settings
from harness.places import PACKAGE
from harness.suites.catalogue import catalogue
from tests.reference import embedded
from tests.unit.doc_files import blocks, rows, text

DOCUMENT = "docs/job-engines.md"
KIT = PACKAGE / "job_engines" / "kit"


def test_every_case_is_documented_with_the_claim_that_it_needs() -> None:
    documented = {case: claim for case, claim, _ in rows(DOCUMENT, "Case | Claim it needs")}
    assert documented == {case.value: str(NEEDS.get(case, "–")) for case in Case}
    assert {str(feature) for feature in JobFeature} == set(documented.values()) - {"–"}


def test_the_cases_of_the_main_job_are_named() -> None:
    said = re.search(r"with seven cases that wait[^:]*: ([^.]*)\.", text(DOCUMENT))
    assert said is not None
    planned = [check.job for check in catalogue().checks if check.job and not check.on_demand]
    assert set(re.findall(r"`([\w-]+)`", said[1])) == {job.case for job in planned}
    assert len({job.case for job in planned}) == 7
    assert {(job.engine, job.variant) for job in planned} == {("absurd", "pooler"), ("oban", "pooler")}


def test_every_expectation_is_explained() -> None:
    source = ast.parse(Path(inspect.getsourcefile(jobs) or "").read_text(encoding="utf-8"))
    compared = [
        call.args[0].id
        for call in ast.walk(source)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id == "compared"
        and isinstance(call.args[0], ast.Name)
    ]
    # one call goes over everything that a worker may leave
    names = {vars(jobs)[name] for name in compared if name.isupper()} | set(jobs.LEFT)
    assert len(names) > 30
    explained = {name: word for name, word, _ in rows(DOCUMENT, "Expectation")}
    assert set(explained) == names
    assert {name: explained[name] for name in SHORT} == SHORT


def test_every_name_of_the_kit_is_described() -> None:
    described = {name for row in rows(DOCUMENT, "Name in `effects`") for name in re.findall(r"\w+", row[0])}
    kit = ast.parse((KIT / "effects.py").read_text(encoding="utf-8"))
    defined = {
        node.name for node in kit.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    assigned = {
        name.id for node in kit.body for name in ast.walk(node) if isinstance(name, ast.Name) and name.id.isupper()
    }
    assert {name for name in defined | assigned if not name.startswith("_") and name != "TYPE_CHECKING"} <= described


def test_every_setting_is_documented() -> None:
    assert [row[0] for row in rows(DOCUMENT, "Setting")] == list(Settings.__struct_fields__)


def test_every_command_is_documented_with_the_placeholders_that_targets_use() -> None:
    documented = {row[0]: re.findall(r"\{(\w+)\}", row[1]) for row in rows(DOCUMENT, "Command | Arguments")}
    assert list(documented) == list(Commands.__struct_fields__)
    for target in sorted((PACKAGE / "job_engines" / "targets").glob("*.toml")):
        for name, keys in documented.items():
            command = getattr(config.load(target, JobEngineFile).commands, name)
            found = [key for word in command for key in re.findall(r"(?<!\$)\{(\w+)\}", word)]
            assert not command or [key for key in found if key not in {"folder", "python", "node"}] == keys, target


def test_every_variable_that_the_kit_reads_is_documented() -> None:
    documented = {name for row in rows(DOCUMENT, "Variable | Value") for name in re.findall(r"[A-Z_]{4,}", row[0])}
    read = set(re.findall(r'environ(?:\.get\(|\[)"([A-Z_]+)"', (KIT / "effects.py").read_text(encoding="utf-8")))
    assert {"EFFECTS_URL", "PAYLOAD", "LEASE_S"} <= read
    assert read <= documented


def test_the_two_calls_are_functions_of_the_database_of_effects() -> None:
    defined = dict(
        re.findall(
            r"CREATE FUNCTION (\w+)\((.*?)\) RETURNS", (KIT / "effects.sql").read_text(encoding="utf-8"), re.DOTALL
        )
    )
    calls = {
        name: given for block in blocks(DOCUMENT, "sql") for name, given in re.findall(r"(job_\w+)\((.*)\)", block)
    }
    assert set(calls) == set(defined) == {"job_begin", "job_phase"}
    for name, given in calls.items():
        parameters = re.sub(r"\s+", " ", defined[name]).split(", ")
        assert len(ast.literal_eval(f"[{given}]")) == len(parameters)


@pytest.mark.parametrize("name", embedded.DOCUMENTS)
def test_a_document_shows_a_program_in_each_language(name: str) -> None:
    shown = re.findall(r"^<!-- the whole file \S+\.(\w+) -->\n```", text(name), re.MULTILINE)
    assert shown == ["toml", "sh", "toml", "py", "cjs"]


def test_a_file_that_is_shown_cannot_drift(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(embedded, "_ROOT", tmp_path)
    (tmp_path / "a.sh").write_text("echo new\n")
    mark = "<!-- the whole file a.sh -->\n"
    for block in ("", "```sh\necho old\n```\n"):
        (tmp_path / "a.md").write_text(f"before\n{mark}{block}after\n")
        assert embedded.document("a.md") == f"before\n{mark}```sh\necho new\n```\nafter\n"
