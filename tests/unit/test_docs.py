"""README, CONTRIBUTING and docs/ agree with the code and with each other: names, quotations, tables and links."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

import jinja2
from jinja2 import meta, nodes

from harness.audit.target_file import NEEDS_STATEMENT, TrailFeature
from harness.checks.documented import load_behaviour
from harness.checks.registry import Safety
from harness.engine.protocol import ServicePlace
from harness.engine.recipes import Recipe, RecipeVersion
from harness.lab.credentials import Roles
from harness.model import Behaviour, Topology
from harness.model.topology import (
    ClientDeclaration,
    HostDeclaration,
    PoolerDeclaration,
    PoolMode,
    PostgresDeclaration,
)
from harness.mutants.observed import MUTATIONS
from harness.suites.catalogue import catalogue
from harness.suites.pooling.advice import advice_for
from tests.tables import each_row
from tests.unit.command_lines import commands
from tests.unit.doc_files import DOCUMENTS, ROOT, anchors, blocks, code_spans, prose, rows, text

#: documents of a reader's own project, which examples name
OF_USERS = frozenset({"docs/audit.md", "docs/adoption.md", "docs/restore.md", "docs/versions.md", "docs/production.md"})
TARGETS, TOPOLOGIES, COMMANDS = "docs/audit-targets.md", "docs/topologies.md", "docs/command-line.md"
#: a README that is read in a minute
MOST_WORDS = 500
#: options of other programs, which the documents name
FOREIGN_OPTIONS = frozenset({"--dir", "--exit-zero", "--formatter", "--if-present", "--predicate-type", "--wait"})
#: who renders which templates: a folder of topologies/config/ and the word of the table
AVAILABLE = {"postgres": "PostgreSQL", "hostapp": "reference host"}


# --- README ----------------------------------------------------------------------------------------------------


def test_the_readme_is_short() -> None:
    assert len(text("README.md").split()) <= MOST_WORDS


def test_the_surprises_of_the_readme_are_documented_outcomes_in_transaction_mode() -> None:
    documented = load_behaviour("pgbouncer")
    assert documented
    surprises = list(rows("README.md", "What you use"))
    assert len(surprises) == 6
    for _, outcome, _, check in surprises:
        behaviour = Behaviour(outcome.partition(":")[0])
        assert behaviour in {Behaviour.LEAKS, Behaviour.LOST, Behaviour.WRONG}
        assert advice_for(check), f"{check}: no advice"
        assert [
            entry
            for entry in documented.behaviour
            if check.removeprefix("pooling.") in entry.features
            and (not entry.modes or PoolMode.TRANSACTION in entry.modes)
            and behaviour in {found.behaviour for found in entry.outcomes()}
        ], check


def test_the_surprises_of_the_readme_are_in_the_sample_that_it_links() -> None:
    sample, readme = "docs/sample/README.md", " ".join(text("README.md").split())
    [heading] = set(re.findall(r"^\| Feature \|.*$", text(sample), re.MULTILINE))
    column = [cell.partition("+")[0] for cell in heading.strip("| ").split(" | ")].index("transaction")
    observed = {cells[0].replace("\\", ""): cells[column] for cells in rows(sample, heading.strip("| "))}
    titles = {check.id: check.feature for check in catalogue().checks}
    for _, outcome, _, check in rows("README.md", "What you use"):
        assert observed[titles[check]] == outcome.partition(":")[0], check
    versions = re.search(r"What (PostgreSQL [\d.]+\d) does.*behind (PgBouncer [\d.]+\d)", text(sample))
    assert versions
    assert all(version in readme for version in versions.groups())


def test_features_are_quoted_as_the_feature_map_titles_them() -> None:
    titles = {check.feature for check in catalogue().checks if check.feature}
    quoted = {row[0] for row in [*rows("docs/quickstart.md", "Feature"), *rows("docs/quickstart.md", "Driver")]}
    assert quoted
    assert quoted <= titles
    count = sum(bool(check.feature) and check.id.startswith("pooling.") for check in catalogue().checks)
    assert f"of {count} features" in " ".join(text("README.md").split())


# --- tables ----------------------------------------------------------------------------------------------------


def test_the_table_of_claims_is_complete() -> None:
    described = {row[0]: row[3] for row in rows(TARGETS, "Claim")}
    expected = {
        feature.value: "`, `".join(NEEDS_STATEMENT.get(feature, ()))
        for feature in TrailFeature
        if feature is not TrailFeature.LIBRARY
    }
    assert described == expected


def test_the_table_of_checks_of_an_environment_is_complete() -> None:
    safe = {check.id for check in catalogue().checks if check.environment_safety in {Safety.READS, Safety.WRITES}}
    described = {row[0] for row in rows("docs/your-staging.md", "check | effect")}
    assert described - {"path.*"} == safe


def test_the_table_of_topology_keys_is_complete() -> None:
    tables = {
        "postgres": PostgresDeclaration,
        "pooler": PoolerDeclaration,
        "client": ClientDeclaration,
        "host": HostDeclaration,
    }
    own = {key for key in Topology.__struct_fields__ if key not in {"name", *tables}}
    nested = {f"{table}.{key}" for table, kind in tables.items() for key in kind.__struct_fields__}
    assert {row[0] for row in rows(TOPOLOGIES, "Key | Meaning | Default")} == own | nested


def test_the_table_of_recipe_keys_is_complete() -> None:
    own = {key for key in Recipe.__struct_fields__ if key != "versions"}
    nested = {f'versions."X".{key}' for key in RecipeVersion.__struct_fields__}
    [table] = re.findall(r"## Recipe keys\n.*?(?=\n## )", text(TOPOLOGIES), re.DOTALL)
    documented = set(re.findall(r"^\| `([a-z_]+|versions\.[^`]+)` \|", table, re.MULTILINE))
    assert documented == own | nested


def variables(template: str) -> set[str]:
    """Return the variables of a template, each with its first attribute: `place.port`, `dsn`."""
    tree = jinja2.Environment(autoescape=True).parse(template)
    free = meta.find_undeclared_variables(tree)
    with_attribute = {
        (node.node.name, node.attr)
        for node in tree.find_all(nodes.Getattr)
        if isinstance(node.node, nodes.Name) and node.node.name in free
    }
    names = {name if attribute == "items" else f"{name}.{attribute}" for name, attribute in with_attribute}
    return names | (free - {name for name, _ in with_attribute})


def test_the_table_of_template_variables_is_complete() -> None:
    documented = {row[0]: row[1] for row in rows(TOPOLOGIES, "Variable")}
    used: set[str] = set()
    for path in (ROOT / "topologies" / "config").rglob("*.j2"):
        group = AVAILABLE.get(path.parent.name, "poolers")
        for name in variables(path.read_text(encoding="utf-8")):
            assert name in documented, path
            assert documented[name] == "all" or group in documented[name].split(", "), path
            used.add(name)
    for document in DOCUMENTS:
        for example in blocks(document, "jinja"):
            assert variables(example) <= set(documented), document
    structs = {"place": ServicePlace, "pooler": PoolerDeclaration, "roles": Roles}
    known = {f"{name}.{key}" for name, kind in structs.items() for key in kind.__struct_fields__}
    assert known <= set(documented)
    assert set(documented) - known <= used


# --- names -----------------------------------------------------------------------------------------------------


@each_row("document", DOCUMENTS)
def test_every_check_that_is_named_exists(document: str) -> None:
    suites = "|".join(catalogue().suites())
    cells = re.findall(rf"\| `((?:{suites})\.(?!md`)[a-z0-9-]+)` (?=\|)", text(document))
    options = re.findall(r"--check ([a-z]+\.[a-z0-9-]+)", text(document))
    declared = re.findall(r'^check = "([^"]+)"', text(document), re.MULTILINE)
    # a mutation is named after the column that it changes, and one column is named like a suite
    known = {check.id for check in catalogue().checks} | {mutation.name for mutation in MUTATIONS}
    assert {*cells, *options, *declared} - {"path.create-post", "migrations.shop-concurrent", "resilience.md"} <= known


def test_claims_are_quoted_as_the_checks_state_them() -> None:
    claims = {check.id: check.claim for check in catalogue().checks}
    quoted = {row[0]: row[2] for row in rows(TARGETS, "Check | P | Claim")}
    assert quoted
    assert quoted == {check: claims[check] for check in quoted}


@each_row("document", DOCUMENTS)
def test_every_option_that_is_named_exists(document: str) -> None:
    known = {name for _, command in commands() for option in command.params for name in option.opts} | FOREIGN_OPTIONS
    known |= {"--version", "--help"}
    sources = [(ROOT / name).read_text(encoding="utf-8") for name in ("bootstrap", "tests/bench/__main__.py")]
    named = {name for span in code_spans(document) for name in re.findall(r"(?<![\w-])--[a-z][a-z-]+", span)}
    assert [name for name in sorted(named - known) if not any(f'"{name}"' in source for source in sources)] == []


def test_every_variable_of_the_environment_exists() -> None:
    files = [ROOT / "bootstrap", ROOT / "noxfile.py", *(ROOT / "harness").rglob("*.py")]
    code = "\n".join(path.read_text(encoding="utf-8") for path in files)
    named = {name for document in DOCUMENTS for name in re.findall(r"\bHARNESS_[A-Z_]+\b", text(document))}
    assert named
    assert {name for name in named if name.rstrip("_") not in code} == set()


# --- links -----------------------------------------------------------------------------------------------------


def links(document: str) -> list[tuple[str, str]]:
    """Return the path and the anchor of every link within the repository."""
    return re.findall(r"\]\((?!https?://|mailto:)([^)\s#]*)(?:#([^)\s]+))?\)", prose(document))


@each_row("document", DOCUMENTS)
def test_every_link_leads_to_a_file_and_to_a_heading(document: str) -> None:
    folder = PurePosixPath(document).parent
    for path, anchor in links(document):
        target = (ROOT / folder / path).resolve() if path else ROOT / document
        assert target.exists(), path
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target.relative_to(ROOT).as_posix()), f"{path}#{anchor}"


@each_row("document", DOCUMENTS)
def test_every_path_of_the_repository_exists(document: str) -> None:
    named = re.findall(r"`((?:harness|topologies|templates|tests|docs)/[\w./-]*\w)/?`", text(document))
    assert [path for path in named if path not in OF_USERS and not (ROOT / path).exists()] == []


def test_every_document_can_be_reached_from_the_readme() -> None:
    reached, queue = {"README.md"}, ["README.md"]
    while queue:
        document = queue.pop()
        for path, _ in links(document):
            found = (ROOT / PurePosixPath(document).parent / path).resolve()
            name = found.relative_to(ROOT).as_posix() if path and found.is_relative_to(ROOT) else ""
            if name in DOCUMENTS and name not in reached:
                reached.add(name)
                queue.append(name)
    assert set(DOCUMENTS) - reached == set()
