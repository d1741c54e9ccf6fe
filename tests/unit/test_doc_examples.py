"""Examples in README, CONTRIBUTING and docs/ work as printed: commands, sessions, TOML, Python and JSON."""

from __future__ import annotations

import ast
import json
import re
import shlex
import string
import tomllib
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from harness import config
from harness.audit.target_file import TargetFile
from harness.audit.target_loading import load_target, reference_target
from harness.checks import registry, server_connections
from harness.checks.collection import build_catalogue
from harness.checks.context import CheckContext
from harness.checks.documented import WORKS, BehaviourFile, load_behaviour_file
from harness.checks.record import CheckRecord
from harness.cli.main import main
from harness.cli.project_file import ProjectFile
from harness.cli.settings import read_settings
from harness.engine.recipes import Recipe
from harness.job_engines.target_file import JobEngineFile
from harness.lab.topologies import load_topology
from harness.model import Section, Topology
from harness.suites.catalogue import FIXTURES
from harness.suites.pooling import probes
from tests.tables import each_row
from tests.unit.command_lines import commands, parse
from tests.unit.doc_files import DOCUMENTS, ROOT, blocks, code_spans, text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TARGETS, GUIDE = "docs/audit-targets.md", "CONTRIBUTING.md"
#: the document with programs of job engines: whole files, which run with the packages of their targets
JOB_ENGINES = "docs/job-engines.md"
#: the documents whose TOML examples are parts of one project file
PROJECT_PAGES = ("docs/your-staging.md", "docs/ci.md", "docs/migrations.md")
#: a day on which no example has expired
TODAY = "2026-11-15"
#: the first lines of a topology, for an example of the rest
CHAIN = 'summary = "an example"\n[postgres]\nversion = "17"\n'


# --- command lines ---------------------------------------------------------------------------------------------


def command_lines() -> Iterator[tuple[str, str]]:
    """Yield every command line of the harness, with its document: lines of shell blocks, and code in sentences.

    A sentence may name a command without its arguments.
    """
    bare = {"--help", *(name for name, _ in commands())}
    for document in DOCUMENTS:
        lines = [line for block in blocks(document, "sh") for line in block.replace("\\\n", "").splitlines()]
        for line in [*(re.split(r" [>|] ", line)[0] for line in lines), *code_spans(document)]:
            found = re.match(r"(?:python -m )?(?:pooler-)?harness (?P<words>[a-z-].+)", line)
            if found and found["words"] not in bare and not re.search(r"[|…]|COMMAND", found["words"]):
                yield document, found["words"]


@each_row(("document", "line"), sorted(set(command_lines())))
def test_every_command_line_is_valid(document: str, line: str) -> None:
    assert parse(shlex.split(line, comments=True)).command.name, f"{document}: {line}"


def lines_without_servers() -> set[str]:
    """Return the command lines that start nothing, and need no file of the reader."""
    lines = {line.partition("#")[0].strip() for _, line in command_lines()}
    reading = re.compile(r"(list|matrix|completion|lint --rules)\b|verify (?!.*--environment).*--dry-run$")
    return {line for line in lines if reading.match(line) and "--topologies-folder" not in line}


@pytest.mark.parametrize("line", sorted(lines_without_servers()))
def test_a_command_line_that_starts_nothing_prints_its_answer(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [word for word in shlex.split(line) if word != "--environments"]  # those of the reader's project file
    assert main(words) == 0
    assert capsys.readouterr().out


def workflow_lines() -> set[str]:
    """Return the commands of workflows in the documents that run checks, with the values of their variables."""
    found = set()
    for document in DOCUMENTS:
        for block in blocks(document, "yaml"):
            values = dict(re.findall(r"^ +([A-Z]+): (.+)$", block, re.MULTILINE)) | {"TARGET": "plain-trigger"}
            for line in re.findall(r"run: harness ((?:verify|prove) .+)$", block, re.MULTILINE):
                found.add(string.Template(line.partition(" || ")[0]).substitute(values))
    return found


@pytest.mark.parametrize("line", sorted(workflow_lines()))
def test_a_command_of_a_workflow_selects_rows(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*shlex.split(line), "--dry-run"]) == 0


def sessions() -> set[str]:
    """Return the names of the Nox sessions, from the source: nox itself would import the module under its own name."""
    module = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))
    own = {
        next((word.value.value for word in named if word.arg == "name" and isinstance(word.value, ast.Constant)), node.name)
        for node in module.body
        if isinstance(node, ast.FunctionDef)
        for item in node.decorator_list
        if "nox.session" in ast.unparse(item)
        for named in [item.keywords if isinstance(item, ast.Call) else []]
    }
    return {str(name) for name in own} | {f"topology-{path.stem}" for path in (ROOT / "topologies").glob("*.toml")}


def session_lines() -> Iterator[tuple[str, str, str]]:
    """Yield the document, the sessions and the arguments of every call of Nox or of bootstrap."""
    for document in DOCUMENTS:
        lines = [line for block in blocks(document, "sh") for line in block.splitlines()]
        for line in [*lines, *code_spans(document)]:
            found = re.match(
                r"(?:nox -s|\./bootstrap) (?P<names>[a-z][a-z -]*?)(?: -- (?P<words>.+))?(?: *#.*)?$", line
            )
            if found:
                yield document, found["names"], found["words"] or ""


@each_row(("document", "names", "words"), sorted(set(session_lines())))
def test_every_session_exists_and_passes_valid_arguments_on(document: str, names: str, words: str) -> None:
    for name in names.split():
        assert name in sessions(), document
        command = ["verify", name.removeprefix("topology-")] if name.startswith("topology-") else [name]
        if words and command[0] in {"verify", "report", "prove"}:
            parse([*command, *shlex.split(words, comments=True)])


def test_the_set_up_commands_are_in_one_block_of_the_readme() -> None:
    [block] = [block for block in blocks("README.md", "sh") if "./bootstrap" in block]
    assert [line.split("#")[0].strip() for line in block.splitlines()] == ["./bootstrap report", "./bootstrap tests"]


@each_row("document", DOCUMENTS)
def test_every_extra_that_is_installed_exists(document: str) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    named = re.findall(r"(?:'\.|pooler-harness)\[([a-z,]+)\]", text(document))
    assert {extra for names in named for extra in names.split(",")} <= set(extras)


# --- TOML and JSON ---------------------------------------------------------------------------------------------


def toml_blocks() -> list[tuple[str, str]]:
    return [(document, block) for document in DOCUMENTS for block in blocks(document, "toml")]


#: what a target file needs besides the part that an example shows
_REST_OF_A_TARGET = {
    "summary": 'summary = "ours"\ntables = ["public.log"]\n',
    "actor": '[actor]\nsetting = "app.user"\n',
    "statements": '[statements]\nattach = "SELECT 1"\nchanges = "SELECT 1"\n',
}


@pytest.mark.parametrize(("document", "block"), toml_blocks())
def test_every_toml_example_is_one_of_its_kind(document: str, block: str, tmp_path: Path) -> None:
    """The keys of an example say which file it is from; the reader of that file accepts it."""
    path = tmp_path / "example.toml"
    path.write_text(block)
    (tmp_path / "log.sql").write_text("SELECT 1;\n")
    keys = set(tomllib.loads(block))
    known = (JobEngineFile,) if "sql" in keys else (ProjectFile, Topology, Recipe, BehaviourFile, TargetFile)
    kinds = [kind for kind in known if keys <= set(kind.__struct_fields__)]
    assert len(kinds) == 1, f"{document}: {sorted(keys)}"
    if kinds == [TargetFile] and "summary" not in keys:  # a part of a target file
        rest = {name: part for name, part in _REST_OF_A_TARGET.items() if name not in keys}
        part = block
        if "statements" in keys and "attach =" not in block:  # one statement of several
            part = f"{block}attach = 'SELECT 1'\nchanges = 'SELECT 1'\n"
        path.write_text(f"{rest.pop('summary')}{part}{''.join(rest.values())}")
    if kinds == [Topology]:
        if "postgres" not in keys:
            path.write_text(CHAIN + block)
        assert load_topology(path).name == path.stem
    elif kinds == [BehaviourFile]:
        assert load_behaviour_file(path).behaviour
    elif kinds == [TargetFile]:
        installed = ["log.sql"] if "install" in keys else []
        assert [file.name for file in load_target(str(path)).install] == installed
    else:
        config.load(path, kinds[0])  # an invalid one raises


def test_the_examples_of_a_project_are_parts_of_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "harness.toml").write_text("".join(block for page in PROJECT_PAGES for block in blocks(page, "toml")))
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "versions.md").write_text("library 0.6.1")
    monkeypatch.chdir(tmp_path)
    settings = read_settings(today=TODAY)
    checks = {check.id for check in settings.catalogue.checks}
    assert {"path.create-post", "path.refresh-title-failure", "command.mix-test"} <= checks
    assert list(settings.environments) == ["staging"]
    assert settings.workflows
    assert settings.readiness
    assert settings.preflight


def test_the_example_of_a_target_is_named_by_its_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    project, target, *_ = blocks(TARGETS, "toml")
    (tmp_path / "log.sql").write_text("SELECT 1;\n")
    (tmp_path / "my-trail.toml").write_text(target)
    (tmp_path / "harness.toml").write_text(project)
    loaded = load_target(config.load(tmp_path / "harness.toml", ProjectFile).audit_target)
    assert [path.name for path in loaded.install] == ["log.sql"]
    assert loaded.documentation == "docs/audit.md"


@each_row("document", DOCUMENTS)
def test_every_json_example_is_one(document: str) -> None:
    for block in blocks(document, "json"):
        json.loads(block)


# --- Python ----------------------------------------------------------------------------------------------------


def test_the_examples_of_checks_can_be_declared() -> None:
    module = ModuleType("example")
    names: dict[str, Any] = {**vars(registry), **vars(probes), **vars(server_connections)}
    module.__dict__.update({name: value for name, value in names.items() if not name.startswith("__")})
    module.__dict__.update(Section=Section, WORKS=WORKS, KEY=1, default_actor=None)
    examples = blocks(GUIDE, "python")
    for example in examples:
        exec(compile(f"from __future__ import annotations\n{example}", "example", "exec"), module.__dict__)  # noqa: S102 -- a part of this repository
    built = build_catalogue([module], FIXTURES)
    assert [check.id for check in built.checks] == ["actor.unset", "pooling.advisory-unlock"]
    context = {*dir(CheckContext), *dir(CheckRecord(reference_target()))}
    for node in ast.walk(ast.parse("".join(examples))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ctx":
            assert node.attr in context


@each_row("document", [document for document in DOCUMENTS if document not in {GUIDE, JOB_ENGINES}])
def test_every_other_python_example_can_be_run(document: str) -> None:
    for example in blocks(document, "python"):
        exec(compile(example, document, "exec"), {})  # noqa: S102 -- a part of this repository
