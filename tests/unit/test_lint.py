"""The linter of adoption tables: its rules, pointers and command line."""

from __future__ import annotations

import json
import os
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.checks import registry
from harness.checks.registry import Capability
from harness.cli.invocation import Services
from harness.cli.main import root
from harness.cli.signals import Signals
from harness.errors import ConfigError, UsageError
from harness.lint.findings import Level, LintFinding, Page
from harness.lint.linter import lint
from harness.lint.pointers import pointers
from harness.lint.repository import Repository
from harness.lint.rules import RULES, judge
from harness.lint.secrets import masked, shapes_in
from harness.lint.verdicts import PointerScope, PointerVerdict
from harness.markdown.document import TableCell, read_document
from harness.markdown.inline import spans
from harness.redaction import Redactor
from tests.growth import is_linear
from tests.tables import each_row

if TYPE_CHECKING:
    from pathlib import Path

NOXFILE = """
import nox
@nox.session
def tests(session): ...
@nox.session(name="docs-live", python=["3.11"])
def docs(session): ...
for each in ("direct", "session"):
    nox.session(name=f"topology-{each}", tags=["t"])(print)
for each in range(3):
    nox.session(name=f"shard-{each}")(print)
"""
FILES = {
    ".git/HEAD": "ref: refs/heads/main\n",
    ".github/workflows/ci.yml": "jobs:\n  verify-pool:\n    steps:\n      - name: Verify it\n",
    "noxfile.py": NOXFILE,
    "topologies/direct.toml": "",
    "topologies/transaction.toml": "",
    "Makefile": "VERSION := 1\n.PHONY: check\ncheck: deps\n\ttrue\ndeps build:\n\ttrue\n",
    "package.json": '{"name": "shop-web", "version": "3.1.0", "scripts": {"e2e": "x", "test": "y"}}',
    "mix.exs": 'app: :shop,\n@version "0.4.0"\naliases: ["verify.audit": ["test"], check: ["test"]],\n{:threadline, "~> 0.6"}\n',
    "lib/mix/tasks/shop.purge.ex": "",
    "lib/shop/audit.ex": "one\ntwo\nthree\n",
    "tests/test_audit.py": "class TestJobs:\n    def test_actor(self): ...\n",
    "test/shop/purge_test.exs": 'test "purges"\n',
    "docs/runbook.md": "# How to run\n\n## Steps: one & two\n",
    "scripts/smoke.sh": "",
    "shop/__init__.py": "",
    "shop/cli.py": "",
}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return tmp_path


def found(repository: Path, text: str, rule: str = "") -> list[LintFinding]:
    """Judge a document in `docs/`, and return the findings of a rule, or all findings."""
    file = repository / "docs" / "adoption.md"
    file.write_text(text)
    return [finding for finding in lint([file]).findings if not rule or finding.rule == rule]


# --- a good row of each table, and rows that violate a rule ----------------------------------------------------

PATHS = (
    "STG-AUDITED-PATH-RUBRIC\n\n"
    "| Path | Kind (HTTP \\| job) | Status | Evidence / pointer | Notes (N/A justification if N/A) |\n"
    "|---|---|---|---|---|\n"
)
HTTP = "| POST /posts | HTTP | OK | `nox -s tests` | CI-class |\n"
JOB = "| purge | job | N/A | | no background job executor in this deployment |\n"
TOPOLOGY = (
    "STG-HOST-TOPOLOGY-TEMPLATE\n\n"
    "| Environment | Class (CI or host) | Chain (app to pooler to postgres) | Pooler product | Pool mode | Ecto pools "
    "| prepare policy | Sandbox note | Matches prod | Evidence link |\n|---|---|---|---|---|---|---|---|---|---|\n"
)
CHECKLIST = "| Checklist item (summary) | Status | Evidence |\n|---|---|---|\n"
ISSUES = "| P | ID | Symptom | Likely area | Owner | Link |\n|---|---|---|---|---|---|\n"
QUESTIONS = "| Question | Answer | Matches prod? |\n|---|---|---|\n"
PREFLIGHT = "| Item | Status | Evidence / notes |\n|---|---|---|\n"
PARITY = "| Check | Status | Evidence |\n|---|---|---|\n"


def environment(**changes: str) -> str:
    """Return a row of the topology table that follows all rules, with some cells changed."""
    cells = {
        "environment": "staging",
        "class": "host",
        "chain": "shop 0.4.0 to PgBouncer 1.24 to PostgreSQL 17",
        "product": "PgBouncer 1.24",
        "mode": "transaction",
        "pools": "pool_size 10",
        "prepare": "unnamed",
        "sandbox": "the sandbox is for tests only",
        "matches": "partial",
        "evidence": "[runbook](runbook.md#how-to-run)",
    } | changes
    return "| " + " | ".join(cells.values()) + " |\n"


BELOW = "\n**staging:** production has two poolers, and this environment has only one of them.\n"


def topology(row: str = "", below: str = BELOW, **changes: str) -> str:
    return TOPOLOGY + (row or environment(**changes)) + below


def paths(row: str) -> str:
    return PATHS + row + HTTP + JOB


GOOD = {
    "paths": PATHS + HTTP + JOB,
    "topology": topology(),
    "yes": topology(matches="yes"),
    "direct and pooled": topology(
        environment() + environment(environment="direct", product="none", mode="none", chain="shop to PostgreSQL 17"),
        BELOW + "\ndirect: there is no pooler, so nothing about pool modes is shown.\n",
    ),
    "one paragraph for one row": topology(below="\nProduction has two poolers, and this has only one of them.\n"),
    "our sandbox note": topology(
        sandbox="no SQL sandbox: every check really commits; a test sandbox never stands for production"
    ),
    "the template's example": TOPOLOGY
    + "| _example: staging_ | _host_ | _x_ | _y_ | _transaction \\| session_ | | | | _yes \\| no_ | |\n"
    + environment()
    + BELOW,
    "checklist": CHECKLIST + "| 1.1 installed | OK | `mix verify.audit`, `make check` |\n"
    "| 1.2 parity | Not run | the nightly job of staging is switched off until the move |\n"
    "| 1.3 backups | N/A | backups are kept outside of what the harness stands up |\n"
    "| 1.4 health | Issue | owner: ada, [ticket](https://example.org/1) |\n",
    "issues": ISSUES
    + "| P0 | AP-2.jobs | x | y | ada | #12 |\n| P2 | PL.pooling.set.session | x | y | ada | [r](runbook.md) |\n"
    "| P1 | PATH.posts | x | y | ada | STG-01 |\n",
    "questions": QUESTIONS + "| Which mode? | transaction | partial |\n\nPartial: the servers are our own.\n",
    "questions with prose": QUESTIONS + "| Which mode? | transaction | **partial**, CI shows the class only |\n",
    "preflight": PREFLIGHT + "| shop 0.4.0 on Hex | Done | `mix hex.info shop`; `shop ~> 0.4` |\n",
    "parity": PARITY + "| pool | OK | CI job `verify-pool` |\n",
    "steps": PARITY + "| pool | OK | 1. start the pooler 2. run the purge |\n",
    "sql": PARITY + "| pool | OK | `SELECT count(*) FROM audit_changes` |\n",
}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_table_has_no_finding(repository: Path, name: str) -> None:
    assert found(repository, GOOD[name]) == []


_E, _W = Level.ERROR, Level.WARNING
BAD: list[tuple[str, Level, int, str]] = [
    # rule R1, four words
    ("R1", _E, 5, paths("| a | HTTP | ✅ | `nox -s tests` | CI-class |\n")),
    ("R1", _E, 5, paths("| a | HTTP | ok | `nox -s tests` | CI-class |\n")),
    ("R1", _E, 5, paths("| a | HTTP | Done | `nox -s tests` | CI-class |\n")),
    ("R1", _E, 3, CHECKLIST + "| a | | `nox -s tests` |\n"),
    (
        "R1",
        _E,
        3,
        "STG-AUDITED-PATH-RUBRIC\n\n| Path | Kind | Evidence |\n|---|---|---|\n| a | HTTP | x |\n| b | job | x |\n",
    ),
    ("R1", _W, 3, CHECKLIST + "| a | OK | `nox -s tests` | b | c |\n"),
    ("R1", _E, 5, paths("| a | HTTP | ~~OK~~ | `nox -s tests` | CI-class |\n")),
    ("R1", _E, 5, paths("| a | HTTP | <del>OK</del> | `nox -s tests` | CI-class |\n")),
    ("R1", _E, 7, PATHS + HTTP + JOB + "POST /z\n"),
    ("R1", _E, 1, "| Item | Status | Status | Evidence |\n|---|---|---|---|\n| a | OK | good | `nox -s tests` |\n"),
    ("R1", _W, 5, paths("| a | HTTP | OK | `nox -s tests` | Issue: the actor is lost, CI-class |\n")),
    ("R1", _W, 5, paths("| a | HTTP | OK | `nox -s tests` | not run on staging, CI-class |\n")),
    ("R1", _W, 3, CHECKLIST + "| a | OK | **Not run** on staging, `nox -s tests` |\n"),
    # rule R2, Not run is not N/A
    ("R2", _E, 5, paths("| a | job | N/A | | the job has not been tested yet by us |\n")),
    ("R2", _E, 3, CHECKLIST + "| a | N/A | pending until the next release of ours |\n"),
    ("R2", _W, 5, paths("| a | job | Not run | | there is no job runner in this deployment |\n")),
    # rule R3, a reason
    ("R3", _E, 5, paths("| a | job | N/A | | not relevant |\n")),
    ("R3", _E, 5, paths("| a | job | N/A | | |\n")),
    ("R3", _E, 5, paths("| a | job | N/A | - | n/a |\n")),
    ("R3", _E, 5, paths("| a | job | N/A | | see above |\n")),
    ("R3", _E, 5, paths("| a | job | N/A | | not needed for us |\n")),
    ("R3", _E, 5, paths("| a | job | N/A | | no jobs |\n")),
    ("R3", _E, 5, paths("| a | job | N/A | | there is no executor<br>and there will be none |\n")),
    # rule R4, a pointer
    ("R4", _E, 3, CHECKLIST + "| a | OK | |\n"),
    ("R4", _E, 3, CHECKLIST + "| a | OK | verified |\n"),
    ("R4", _E, 3, CHECKLIST + "| a | OK | `works on my machine` |\n"),
    ("R4", _E, 3, CHECKLIST + "| a | OK | we make sure that the actor is set and/or kept |\n"),
    ("R4", _E, 3, CHECKLIST + "| a | OK | `test/shop/gone_test.exs` |\n"),
    ("R4", _E, 3, CHECKLIST + "| a | OK | `nox -s tests`, and [here](gone.md) |\n"),
    ("R4", _W, 3, CHECKLIST + "| a | Not run | waits for `lib/shop/gone.ex` |\n"),
    ("R4", _E, 3, ISSUES + "| P0 | AP-2.jobs | x | y | ada | [r](gone.md) |\n"),
    ("R4", _E, 5, topology(evidence="")),
    ("R4", _E, 3, topology().replace("Evidence link", "Remarks")),
    ("R4", _E, 5, topology(evidence="it was seen to work")),
    ("R4", _W, 5, topology(evidence="", matches="no")),
    # rule R5, Issues are tracked
    ("R5", _E, 3, CHECKLIST + "| a | Issue | |\n"),
    ("R5", _W, 3, CHECKLIST + "| a | Issue | it is flaky at times |\n"),
    ("R5", _E, 3, ISSUES + "| P0 | AP-2.jobs | x | y | unassigned | - |\n"),
    ("R5", _W, 3, ISSUES + "| P0 | AP-2.jobs | x | y | ada | |\n"),
    # rule R6, whose evidence
    ("R6", _W, 5, PATHS + HTTP.replace("CI-class", "") + JOB),
    # rule R7, class
    ("R7", _E, 5, topology(**{"class": "staging"})),
    ("R7", _E, 5, topology(**{"class": ""})),
    ("R7", _E, 3, (TOPOLOGY + environment() + BELOW).replace("Class (CI or host)", "Owner")),
    ("R7", _W, 1, "STG-HOST-TOPOLOGY-TEMPLATE\n\n# next\n\n" + CHECKLIST),
    ("R7", _W, 3, TOPOLOGY),
    # rule R8, matches prod
    ("R8", _E, 5, topology(matches="mostly")),
    ("R8", _E, 5, topology(matches="partial: it has one pooler")),
    ("R8", _E, 5, topology(matches="yes", **{"class": "CI"})),
    ("R8", _E, 5, topology(below="")),
    ("R8", _E, 5, topology(below="\n# Another section\n\nstaging is not production, as was said many times.\n")),
    ("R8", _E, 7, topology(below="\nstaging differs.\n")),
    ("R8", _W, 7, topology(below="\nstaging is what we call the servers in the cellar of the house.\n")),
    (
        "R8",
        _E,
        6,
        topology(environment() + environment(environment="perf"), BELOW),
    ),
    ("R8", _E, 3, QUESTIONS + "| Which mode? | transaction | mostly |\n"),
    ("R8", _W, 3, QUESTIONS + "| Which mode? | transaction | partial |\n"),
    # rule R9, a pooler has a mode
    ("R9", _E, 5, topology(mode="")),
    ("R9", _E, 5, topology(mode="default")),
    ("R9", _E, 5, topology(mode="transaction \\| session")),
    ("R9", _W, 5, topology(product="RDS Proxy", mode="multiplexed")),
    ("R9", _E, 5, topology(product="none", mode="none")),
    ("R9", _W, 5, topology(product="none", chain="shop to PostgreSQL 17")),
    # rule R10, the sandbox
    ("R10", _E, 5, topology(sandbox="")),
    ("R10", _E, 5, topology(sandbox="same as production")),
    ("R10", _E, 5, topology(sandbox="Ecto sandbox, mode shared")),
    ("R10", _E, 5, paths("| a | HTTP | OK | `nox -s tests` | CI-class: the sandbox behaves as production |\n")),
    # rule R12, versions
    ("R12", _W, 5, topology(chain="app to pooler to postgres", product="PgBouncer", evidence="#12")),
    ("R12", _W, 5, paths("| a | HTTP | OK | `nox -s tests` | host-class |\n")),
    # rule R13, both kinds
    ("R13", _E, 3, PATHS + HTTP),
    ("R13", _E, 3, PATHS + JOB),
    ("R13", _E, 5, paths("| a | queue | OK | `nox -s tests` | CI-class |\n")),
    ("R13", _W, 5, paths("| GET /posts | HTTP | OK | `nox -s tests` | CI-class |\n")),
    ("R13", _W, 1, "STG-AUDITED-PATH-RUBRIC\n\n# next\n\n" + CHECKLIST),
    # rule R14, ids and priorities
    ("R14", _E, 3, ISSUES + "| high | AP-2.jobs | x | y | ada | #12 |\n"),
    ("R14", _E, 3, ISSUES + "| P0 | 17 | x | y | ada | #12 |\n"),
    ("R14", _E, 4, ISSUES + "| P0 | AP-2.jobs | x | y | ada | #12 |\n" * 2),
    # rule R16, not only direct
    ("R16", _W, 5, topology(product="none", mode="none", chain="shop to PostgreSQL 17")),
    # rule R17, no parity is implied
    ("R17", _E, 6, topology(environment(environment="production") + environment(mode="session", matches="yes"))),
    ("R17", _E, 5, topology(chain="Not run: nobody stood it up", matches="yes")),
    ("R17", _W, 5, topology(matches="no", below="")),
    ("R17", _W, 5, paths("| a | HTTP | N/A | | staging has another pooler than this chain needs |\n")),
    # rule R18, evidence
    ("R18", _E, 3, CHECKLIST + "| a | Not run | |\n"),
    # rule R19, counts and versions
    ("R19", _E, 3, CHECKLIST + "| a | OK | `nox -s tests`, 136 tests |\n"),
    ("R19", _E, 3, CHECKLIST + "| a | OK | `nox -s tests` (12 tests, all green) |\n"),
    ("R19", _E, 3, CHECKLIST + "| a | OK | `nox -s tests`, all 40 checks passed |\n"),
    ("R19", _E, 3, PREFLIGHT + "| shop **0.3.9** on Hex | OK | `mix verify.audit` |\n"),
    ("R19", _E, 3, PREFLIGHT + '| depends on `{:shop, "~> 0.3.0"}` | OK | `mix verify.audit` |\n'),
    ("R19", _W, 1, "We have 136 tests.\n\n" + CHECKLIST),
    ("R19", _W, 1, "Filled with shop 0.3.9.\n\n" + CHECKLIST),
]


@each_row(
    ("rule", "level", "line", "text"), BAD, ids=[f"{rule}-{number}" for number, (rule, *_) in enumerate(BAD)]
)
def test_a_violation_is_found_at_its_line(repository: Path, rule: str, level: Level, line: int, text: str) -> None:
    findings = found(repository, text, rule)
    assert [(finding.line, finding.level) for finding in findings] == [(line, level)]
    assert findings[0].path.endswith("docs/adoption.md")
    assert findings[0].fix


@each_row(
    "reason",
    [
        "we did not have time to run it yet",
        "The team plans to exercise this path next quarter",
        "there is no time for it in this sprint",
        "we have not got round to testing this path",
        "nobody has looked at this path so far",
        "it was too much work for this release",
        "the job is planned for Q3 of this year",
        "we ran out of time before the job came up",
        "no one has ever exercised the job here",
        "we did not look at the job in staging",
        "our team intends to test the job in May",
        "it is not worth the effort for one job",
        "we lack the time to exercise the job",
        "the job has never been exercised in staging",
        "we haven't had time for the job",
        "we will look at the job in the coming weeks",
        "we couldn't find the time to exercise the job",
        "it isn't worth testing for one job",
        "nobody has had the time for the job",
        "the team has not managed to look at it",
        "running the job is too much work for us",
    ],
)
def test_lack_of_time_is_not_a_reason_for_na(repository: Path, reason: str) -> None:
    assert [finding.level for finding in found(repository, paths(f"| a | job | N/A | | {reason} |\n"), "R2")] == [_E]


@each_row(
    "reason",
    [
        "statement pooling refuses transaction blocks",
        "the path was removed in 0.7",
        "no job runner in this application",
        "there is no time limit for a transaction here",
        "the two callers do not write at the same time",
        "there is no time to live for what is queued",
        "the pooler keeps no query plans for unnamed statements",
        "jobs are scheduled to run outside of this deployment",
        "the queue has no backlog that could be looked at",
        "this release of the pooler has no transaction mode",
        "foreign keys are deferred until the commit, and there are none",
        "nobody can write there: the replica is read only",
        "the pool has no capacity for a second client",
        "PgBouncer does not check what the server runs",
        "the planner of this server has no parallel mode",
        "the application has not got a job executor",
        "nobody has got write access to the replica",
        "the job is expected to run outside of this deployment",
        "the purge is meant to run in another service",
        "a job runner is not planned for this application",
        "we did not install a job runner in this deployment",
        "the partition of the current month is never purged",
        "jobs of low priority are dropped by this deployment",
        "the statement runs out of time in this mode by design",
    ],
)
def test_a_missing_feature_of_the_host_is_a_reason_for_na(repository: Path, reason: str) -> None:
    assert found(repository, paths(f"| a | job | N/A | | {reason} |\n")) == []


def test_the_notes_of_an_ok_may_name_tickets_and_parts(repository: Path) -> None:
    for notes in ("Issue #12 is closed, CI-class", "two callers OK; twice Not run: why; CI-class", "N/A"):
        assert found(repository, paths(f"| a | HTTP | OK | `nox -s tests` | {notes} |\n"), "R1") == []


def test_a_path_that_only_reads_does_not_count_as_the_http_path(repository: Path) -> None:
    findings = found(repository, PATHS + HTTP.replace("POST", "GET") + JOB, "R13")
    assert [(finding.line, finding.level) for finding in findings] == [(3, _E), (5, _W)]


@pytest.mark.parametrize(
    "text",
    [
        "PostgreSQL 17 test environment",
        "three tests",
        "`tests/test_audit.py:2` tests it",
        "section 3 tests",
        "shop 0.4",
        "shop >= 0.2",
        "bookshop 0.3.9",
        "shop-web 3.1.0",
    ],
)
def test_numbers_that_are_not_test_counts_have_no_finding(repository: Path, text: str) -> None:
    assert found(repository, PARITY + f"| a | OK | `nox -s tests`: {text} |\n", "R19") == []


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_findings_have_the_right_line_with_any_line_end(repository: Path, line_end: str) -> None:
    text = "\ufeffprose\n\n" + CHECKLIST + "| a | good | `nox -s tests` |\n"
    (repository / "docs" / "adoption.md").write_bytes(text.replace("\n", line_end).encode())
    assert [finding.line for finding in lint([repository / "docs" / "adoption.md"]).findings] == [5]


@pytest.mark.parametrize("capability", [value for value in vars(registry).values() if isinstance(value, Capability)])
def test_the_harness_own_reasons_for_na_have_no_finding(repository: Path, capability: Capability) -> None:
    assert found(repository, PARITY + f"| a | N/A | {capability.lacking} |\n") == []


# --- pointers -----------------------------------------------------------------------------------------------------


def verdicts(repository: Path, raw: str) -> list[PointerVerdict]:
    document = repository / "docs" / "adoption.md"
    document.write_text("# Here\n")
    return [
        pointer.verdict
        for pointer in pointers(
            TableCell(raw=raw, spans=spans(raw)), PointerScope(Repository(repository), document.parent), document
        )
    ]


EXISTING = [
    "`tests/test_audit.py`",
    "`tests/test_audit.py::TestJobs::test_actor`",
    "`tests/test_audit.py::TestJobs::test_actor[session-1]`",
    "`lib/shop/audit.ex:3`",
    "lib/shop/audit.ex shows it",
    "`purge_test.exs`",
    "see docs/runbook.md",
    "`test/shop/`",
    "`test/*/purge*`",
    "[x](runbook.md#steps-one--two)",
    "[x](/lib/shop/audit.ex#L2-L3)",
    "[x](../tests/test_audit.py)",
    "[x](#here)",
    "`nox -s tests`",
    "`nox -s docs-live-3.11`",
    "`nox -s topology-transaction -- --check whatever`",
    "`nox --session=tests -- -k x`",
    "`.venv/bin/nox -s tests && make check`",
    "nox -s tests",
    "`pytest tests/test_audit.py -k actor`",
    "`DB_PORT=5433 MIX_ENV=test mix verify.audit`",
    "`mix check`",
    "`mix shop.purge --dry-run`",
    "`mix test test/shop/purge_test.exs:1`",
    "`make -j 4 check`",
    "`npm run e2e`",
    "`npm test`",
    "`./scripts/smoke.sh --fast`",
    "`bash scripts/smoke.sh`",
    "`python -m shop.cli`",
    "`python -m pytest tests/test_audit.py::TestJobs`",
    "`uv run pytest tests`",
    "`go test ./lib/...`",
    "`python -m harness verify --check actor.residue --suite path`",
    "`harness verify --check command.import`",
    "job `verify-pool`",
    "`cd docs && ./../scripts/smoke.sh`",
]
MISSING = [
    "`tests/test_gone.py`",
    "tests/test_gone.py",
    "`tests/test_audit.py::test_gone`",
    "`lib/shop/audit.ex:40`",
    "`gone_test.exs`",
    "`test/gone/`",
    "`test/gone*/*.exs`",
    "`tests/test_<name>.py`",
    "[x](gone.md)",
    "[x](runbook.md#gone)",
    "[x](../../outside.md)",
    "[x](#gone)",
    "`nox -s gone`",
    "`nox -s topology-gone`",
    "`nox -s tests gone`",
    "`pytest tests/test_gone.py`",
    "`mix verify.gone`",
    "`mix test test/gone_test.exs`",
    "`make gone`",
    "`npm run gone`",
    "`./gone.sh --fast`",
    "`bash scripts/gone.sh`",
    "`python -m shop.gone`",
    "`python -m harness verify --check actor.gone`",
    "`harness verify --suite gone`",
    "`cd gone && make check`",
]
UNKNOWN = [
    "https://example.org/run/1",
    "[log](https://example.org/run/1)",
    "PR #12",
    "#12",
    "shop/shop#12",
    "issue SHOP-12",
    "`nox -s shard-7`",
    "`mix threadline.verify_coverage`",
    "`mix ecto.migrate`",
    "`kubectl logs deploy/shop`",
    "`frobnicate --all`",
    "`python -m locust`",
    "`SELECT 1`",
    "1. start it 2. look",
]
NO_POINTER = [
    "",
    "verified",
    "`verify_coverage`",
    "works on my machine",
    "`works fine`",
    "and/or",
    "`POST /api/posts`",
    "`/api/posts`",
    "`Threadline.Job.actor_ref/1`",
    "`application/json`",
    "tests",
    "UTF-8",
    "Node.js",
    "mix of things",
    "make sure",
    "`MIX_ENV=test`",
    "`shop/<name>`",
]


@each_row(
    ("raw", "verdict"),
    [
        *((raw, PointerVerdict.EXISTS) for raw in EXISTING),
        *((raw, PointerVerdict.MISSING) for raw in MISSING),
        *((raw, PointerVerdict.UNKNOWN) for raw in UNKNOWN),
    ],
)
def test_a_pointer_is_judged(repository: Path, raw: str, verdict: PointerVerdict) -> None:
    found = verdicts(repository, raw)
    assert verdict in found
    assert verdict is PointerVerdict.MISSING or PointerVerdict.MISSING not in found


@each_row("raw", NO_POINTER)
def test_a_word_is_not_a_pointer(repository: Path, raw: str) -> None:
    assert verdicts(repository, raw) == []


def test_every_command_of_a_command_line_is_judged(repository: Path) -> None:
    assert verdicts(repository, "`nox -s tests && make gone; frobnicate --all`") == [
        PointerVerdict.EXISTS,
        PointerVerdict.MISSING,
        PointerVerdict.UNKNOWN,
    ]


def test_commands_without_their_files_are_missing(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    for raw in ("`nox -s tests`", "`make check`", "`npm run e2e`", "`mix verify.audit`"):
        assert verdicts(tmp_path, raw) == [PointerVerdict.MISSING]


@given(st.text(alphabet="ab./:#*[]()<>`|&;'\" -\x00\\…~$%é", max_size=60))
def test_any_cell_can_be_judged(tmp_path_factory: pytest.TempPathFactory, raw: str) -> None:
    root = tmp_path_factory.getbasetemp()
    text = PARITY + f"| a | OK | {raw} |\n"
    judge(Page(path="x", file=root / "x.md", document=read_document(text), repository=Repository(root)))


# --- secrets --------------------------------------------------------------------------------------------------------

# concatenated, so that secret scanners do not report this file
SECRETS = [
    "postgresql" + "://ada:s3cretword@db.example.org/shop",
    "host=db.example.org dbname=shop user=ada " + "password=s3cretword",
    "AKIA" + "S3CRETWORDS3CRET",
    "ghp_" + "s3cretword" * 3,
    "glpat-" + "s3cretword" * 2,
    "xoxb-" + "s3cretword-1",
    "eyJ" + "s3cretword.eyJ" + "s3cretword.abc",
    "-----BEGIN " + "PRIVATE KEY-----",
    "DB_PASSWORD=" + "s3cretword",
    "password: `" + "s3cretword1`",
    "Authorization: Bearer " + "s3cretword1234",
    "SCRAM-SHA-256" + "$4096:s3cretword",
]
INTERNAL = [
    "https://grafana.internal/d/1",
    "http://10.1.2.3:8080/",
    "postgres://pool.corp:6432/shop",
    "host=db.example.org port=5432 dbname=shop",
]
HARMLESS = [
    "postgresql://[redacted]@db.example.org/x".replace("postgresql", "pooler"),
    "https://user:***@example.org",
    "https://user:<password>@example.org",
    "password=$DB_PASSWORD",
    "host=… dbname=… user=…",
    "password: changed on the server, and not in the pooler",
    "tokens: the session has none",
    "https://github.com/shop/shop/pull/12",
    "https://localhost.example.org/",
    "http://192.168.example.org/",
    "https://example.org:8443/@scope/package",
    "psql 'host=localhost port=6432 dbname=shop'",
    "postgres://localhost:6432/shop",
]


@pytest.mark.parametrize("secret", SECRETS + INTERNAL)
def test_a_secret_is_found_and_not_repeated(repository: Path, secret: str) -> None:
    findings = found(repository, PARITY + f"| a | OK | only a sentence, {secret} |\n")
    assert [(finding.line, finding.level) for finding in findings if finding.rule == "R11"] == [(3, Level.ERROR)]
    assert not any("s3cretword" in str(finding).lower() for finding in findings)
    assert "s3cretword" not in masked(secret).lower()


@each_row("text", HARMLESS)
def test_a_placeholder_is_not_a_secret(text: str) -> None:
    assert list(shapes_in(text)) == []


def test_secrets_are_found_in_code_and_local_addresses_only_warn_outside_of_tables(repository: Path) -> None:
    text = (
        f"```\n{SECRETS[0]}\nhttp://localhost:4000/audit\n```\n\n"
        + PARITY
        + "| a | OK | http://localhost:4000/audit |\n"
    )
    assert [(finding.line, finding.level) for finding in found(repository, text, "R11")] == [(2, _E), (3, _W), (8, _E)]


# --- documents and the command ----------------------------------------------------------------------------------------


def test_there_are_nineteen_rules_and_each_has_a_judge_or_is_left_to_people() -> None:
    assert [rule.number for rule in RULES] == [f"R{n}" for n in range(1, 20)]
    assert [rule.number for rule in RULES if rule.judge is None] == ["R15"]
    assert all(rule.judge or rule.left for rule in RULES)
    assert {rule.number for rule in RULES if rule.judge} == {rule for rule, *_ in BAD} | {"R11"}


def test_the_report_lists_what_it_did_not_judge(repository: Path) -> None:
    file = repository / "a.md"
    file.write_text(PARITY + "| a | OK | https://example.org/1 and `frobnicate --all` |\n")
    report = lint([file])
    assert report.findings == ()
    assert any("whether a pointer shows what its row says" in question for question in report.not_judged)
    assert "whether the URL exists (1 pointer, not checked)" in report.not_judged
    assert [table.line for table in report.tables[str(file)]] == [1]


def test_the_root_is_the_repository_of_the_document_by_default(repository: Path) -> None:
    file = repository / "docs" / "adoption.md"
    file.write_text(PARITY + "| a | OK | `make check` |\n")
    assert lint([file]).errors == 0
    assert lint([file], repository / "docs").errors == 1


def run(arguments: list[str], prose: list[str]) -> int:
    """Run `lint` as the command line does, without its error handling."""
    terminal: Any = SimpleNamespace(say=lambda text, style="": prose.append(text))
    services = Services(terminal, Redactor(), Signals(prose.append))
    with root.make_context("harness", ["lint", *arguments], obj=services) as ctx:
        code: int = root.invoke(ctx)
    return code


def test_findings_are_printed_for_people_and_machines(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = repository / "a.md"
    file.write_text(CHECKLIST + "| a | OK | verified |\n")
    prose: list[str] = []
    assert run([str(file)], prose) == 1
    line = capsys.readouterr().out
    assert line.startswith(f'{file}:3: R4 error: OK without a pointer: "verified". fix: ')
    assert prose[-1] == "errors=1 warnings=0"
    assert any("whether a pointer shows what its row says" in line for line in prose)
    assert run(["--json", str(file)], prose) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["findings"] == [
        {
            "path": str(file),
            "line": 3,
            "rule": "R4",
            "level": "error",
            "what": 'OK without a pointer: "verified"',
            "mend": "name a command, a test, a file, a link or a ticket that shows it",
        }
    ]


def test_warnings_alone_do_not_fail(repository: Path) -> None:
    file = repository / "a.md"
    file.write_text(CHECKLIST + "| a | Issue | it is flaky at times |\n")
    assert run([str(file)], []) == 0


def test_the_rules_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--rules"], []) == 0
    assert len(capsys.readouterr().out.splitlines()) == 19
    assert run(["--rules", "--json"], []) == 0
    assert json.loads(capsys.readouterr().out)[14]["judged"] is False


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.md", None, "document not found"),
        ("docs", None, "is a folder"),
        ("pipe", None, "not a regular file"),
        ("a.md", b"| a |\x00", "is binary"),
        ("a.md", b"a\nna\xefve", "invalid UTF-8"),
        ("a.md", b"# nothing\n\n| a | b |\n|---|---|\n", "STG-AUDITED-PATH-RUBRIC"),
    ],
)
def test_a_document_that_cannot_be_judged_is_a_usage_error(
    repository: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (repository / name).write_bytes(content)
    if name == "pipe":
        os.mkfifo(repository / name)
    with pytest.raises(UsageError) as caught:
        run([str(repository / name)], [])
    assert message in str(caught.value)
    assert caught.value.exit_code == 2


def test_other_documents_are_judged_when_one_has_no_tables(repository: Path) -> None:
    (repository / "prose.md").write_text("# nothing\n")
    (repository / "rubric.md").write_text(PATHS + HTTP)
    out: list[str] = []
    run([str(repository / "prose.md"), str(repository / "rubric.md")], out)
    assert any("1 table," in line and "rubric.md" in line for line in out), out
    with pytest.raises(UsageError, match="in any of the documents"):
        run([str(repository / "prose.md"), str(repository / "prose.md")], [])


def test_tables_that_are_not_read_are_listed(repository: Path) -> None:
    quoted = "".join(f"> {line}\n" for line in (PATHS + HTTP).splitlines() if line.startswith("|"))
    in_list = "- x\n\n" + "".join(f"    {line}\n" for line in quoted.splitlines()).replace("    ", "  ", 1)
    (repository / "a.md").write_text(
        f"{PATHS}{HTTP}\n{quoted}\n<table><tr><td>OK</td></tr></table>\n\n{in_list}\n```\n{quoted}```\n"
    )
    not_judged = lint([repository / "a.md"]).not_judged
    assert sum("in a block quote or in HTML" in question for question in not_judged) == 3


def test_no_document_and_no_root_are_usage_errors(repository: Path) -> None:
    with pytest.raises(UsageError, match="missing argument FILE"):
        run([], [])
    with pytest.raises(UsageError, match="not a folder"):
        run(["--root", str(repository / "gone"), "x.md"], [])


def test_a_document_nested_too_deep_is_an_error(repository: Path) -> None:
    (repository / "a.md").write_text(f"{'> ' * 100}x\n\n{PATHS}{HTTP}")
    with pytest.raises(ConfigError, match=r"a\.md:1: .*nested more than 100 levels"):
        run([str(repository / "a.md")], [])


def test_a_link_into_a_document_nested_too_deep_is_not_checked(repository: Path) -> None:
    (repository / "docs" / "deep.md").write_text(f"# Here\n\n{'> ' * 100}x\n")
    assert verdicts(repository, "[x](deep.md#here)") == [PointerVerdict.UNKNOWN]


@pytest.mark.parametrize("hostile", ["eyJ.", "a-", "a/", "#1 ", "x#"])
def test_a_long_cell_is_read_in_linear_time(hostile: str, repository: Path) -> None:
    assert is_linear(lambda raw: verdicts(repository, raw), hostile)


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 100_000])
def test_numbers_without_end_and_deep_nesting_in_manifests_are_no_package(tmp_path: Path, value: str) -> None:
    (tmp_path / "package.json").write_text(f'{{"version": {value}')
    (tmp_path / "pyproject.toml").write_text(f"version = {value}")
    repository = Repository(tmp_path)
    assert repository.scripts(tmp_path) == frozenset()
    assert list(repository.packages) == []
