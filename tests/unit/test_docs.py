"""Examples and references in README, CONTRIBUTING and docs/ agree with the code."""

from __future__ import annotations

import ast
import re
import shlex
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from harness import places
from harness.audit.target_file import NEEDS_STATEMENT, TrailFeature
from harness.audit.target_loading import load_target, reference_target
from harness.checks import registry, server_connections
from harness.checks.collection import build_catalogue
from harness.checks.context import CheckContext
from harness.checks.documented import WORKS
from harness.checks.record import CheckRecord
from harness.cli.project_file import ProjectFile
from harness.config import load
from harness.lab.topologies import load_topology
from harness.model import Section
from harness.suites.catalogue import FIXTURES, catalogue
from harness.suites.pooling import probes
from tests.unit.command_lines import parse
from tests.unit.test_readmes import blocks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROOT = places.PACKAGE.parent
DOCUMENTS = ("README.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))))
#: documents of a reader's own project, which examples name
OF_USERS = frozenset({"docs/audit.md", "docs/adoption.md", "docs/restore.md", "docs/versions.md", "docs/production.md"})
TARGETS, GUIDE, REPORT = "docs/audit-targets.md", "CONTRIBUTING.md", "docs/report.md"


def text(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def rows(document: str, heading: str) -> Iterator[list[str]]:
    """Yield the cells of every table whose first columns have these headings."""
    table = re.compile(rf"^\| {re.escape(heading)} \|.*\n\|[-|]+\n((?:\|.*\n)+)", re.MULTILINE)
    for found in table.finditer(text(document)):
        for line in found[1].splitlines():
            yield [cell.strip(" `") for cell in line.strip("|").split(" | ")]


# --- command lines ---------------------------------------------------------------------------------------------


def command_lines() -> Iterator[tuple[str, str]]:
    """Yield every command line of the harness in the shell blocks of the documents, with its document."""
    for document in DOCUMENTS:
        for block in blocks(document, "sh"):
            for line in block.splitlines():
                if found := re.match(r"(?:python -m )?harness (?P<words>.+)", line):
                    yield document, found["words"]


@pytest.mark.parametrize(("document", "line"), list(command_lines()))
def test_every_command_line_is_valid(document: str, line: str) -> None:
    assert parse(shlex.split(line, comments=True)).command.name, f"{document}: {line}"


def test_the_two_commands_are_in_one_block_of_the_readme() -> None:
    [block] = [block for block in blocks("README.md", "sh") if "./bootstrap" in block]
    assert [line.split("#")[0].strip() for line in block.splitlines()] == ["./bootstrap report", "./bootstrap tests"]


# --- TOML ------------------------------------------------------------------------------------------------------


def test_the_example_of_a_target_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    project, target = blocks(TARGETS, "toml")
    (tmp_path / "log.sql").write_text("SELECT 1;\n")
    (tmp_path / "my-trail.toml").write_text(target)
    (tmp_path / "harness.toml").write_text(project)
    file = load(tmp_path / "harness.toml", ProjectFile)
    loaded = load_target(file.audit_target)
    assert [path.name for path in loaded.install] == ["log.sql"]
    assert loaded.documentation == "docs/audit.md"


def test_the_table_of_claims_is_complete() -> None:
    described = {row[0]: row[2] for row in rows(TARGETS, "Claim")}
    expected = {
        feature.value: "`, `".join(NEEDS_STATEMENT.get(feature, ()))
        for feature in TrailFeature
        if feature is not TrailFeature.LIBRARY
    }
    assert described == expected


def test_the_example_of_a_topology_is_one(tmp_path: Path) -> None:
    [topology] = [block for block in blocks(GUIDE, "toml") if "[postgres]" in block]
    (tmp_path / "example.toml").write_text(topology)
    assert load_topology(tmp_path / "example.toml").host.pool_size == 4


def test_the_entries_of_a_project_file_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "harness.toml").write_text("".join(blocks(REPORT, "toml")))
    file = load(tmp_path / "harness.toml", ProjectFile)
    assert file.known_issues
    assert file.attestations
    assert {entry.check for entry in file.known_issues} <= {check.id for check in catalogue().checks}


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


# --- names -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_check_that_is_named_exists(document: str) -> None:
    suites = "|".join(catalogue().suites())
    cells = re.findall(rf"\| `((?:{suites})\.[a-z0-9-]+)` (?=\|)", text(document))
    options = re.findall(r"--check ([a-z]+\.[a-z0-9-]+)", text(document))
    assert {*cells, *options} <= {check.id for check in catalogue().checks}


def test_claims_are_quoted_as_the_checks_state_them() -> None:
    claims = {check.id: check.claim for check in catalogue().checks}
    quoted = {row[0]: row[2] for row in rows(TARGETS, "Check | P | Claim")}
    assert quoted
    assert quoted == {check: claims[check] for check in quoted}


def test_features_are_quoted_as_the_feature_map_titles_them() -> None:
    titles = {check.feature for check in catalogue().checks if check.feature}
    quoted = {row[0] for row in [*rows("README.md", "Feature"), *rows("README.md", "Driver")]}
    assert quoted
    assert quoted <= titles
    count = sum(bool(check.feature) and check.id.startswith("pooling.") for check in catalogue().checks)
    assert f"({count} features;" in text("README.md")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_leads_to_a_file(document: str) -> None:
    folder = (ROOT / document).parent
    links = re.findall(r"\]\((?!https?://|#)([^)\s#]+)", text(document))
    assert [link for link in links if not (folder / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_path_of_the_repository_exists(document: str) -> None:
    named = re.findall(r"`((?:harness|topologies|templates|tests|docs)/[\w./-]*\w)/?`", text(document))
    assert [path for path in named if path not in OF_USERS and not (ROOT / path).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_heading_that_is_linked_exists(document: str) -> None:
    headings = re.findall(r"^#+ (.+)$", text(document), re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert [link for link in re.findall(r"\]\(#([^)]+)\)", text(document)) if link not in anchors] == []
