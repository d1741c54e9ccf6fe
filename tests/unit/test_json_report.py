"""report.json and ctrf.json: the whole report as data, by the schemas that describe them."""

from __future__ import annotations

import importlib
import json
import os
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from harness import places
from harness.model import (
    BackendProbe,
    Behaviour,
    Expectation,
    FeatureOutcome,
    KnownIssue,
    Limit,
    Outcome,
    Proof,
    Severity,
    Status,
)
from harness.report.building import build_report
from harness.report.ctrf_report import ctrf
from harness.report.evidence import Row
from harness.report.json_report import DERIVED, encoded, report_file, rows_of, schema
from harness.report.merging import merge
from harness.report.render import render
from harness.report.report_file import ReportFile
from harness.report.tables import Report
from tests.unit.made_up import NAMES, PLAN, mixed, planned, result, store_run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ROOT = places.PACKAGE.parent
PUBLISHED = ROOT / "docs" / "schemas" / "report.schema.json"
CTRF = ROOT / "tests" / "schemas" / "ctrf" / "ctrf.schema.json"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("reports")
    return build_report(merge([store_run(folder, mixed())], PLAN), folder)


def decoded(report: Report) -> ReportFile:
    return msgspec.json.decode("".join(encoded(report)), type=ReportFile)


@pytest.fixture(scope="session")
def valid() -> Callable[[object, dict[str, object]], bool]:
    """Return a function that says whether a document satisfies a schema."""
    try:
        jsonschema = importlib.import_module("jsonschema")
    except ImportError:
        if os.environ.get("CI"):
            raise
        pytest.skip("jsonschema is missing; the extra `tests` has it")

    def is_valid(document: object, schema: dict[str, object]) -> bool:
        validator = jsonschema.validators.validator_for(schema)
        validator.check_schema(schema)
        return bool(validator(schema).is_valid(document))

    return is_valid


# --- report.json -------------------------------------------------------------------------------------------

TEXT = st.text(max_size=9)
OUTCOMES = st.builds(
    Outcome, behaviour=st.sampled_from(Behaviour), sqlstate=st.sampled_from(("", "42501")), closed=st.booleans()
)
FEATURES = st.builds(FeatureOutcome, observed=OUTCOMES, expected=st.lists(OUTCOMES, max_size=2).map(tuple), source=TEXT)
EXPECTATIONS = st.builds(
    Expectation,
    name=TEXT,
    expected=st.sampled_from(("1", "2")),
    observed=st.sampled_from(("1", "2")),
    held=st.booleans(),
    consequence=st.booleans(),
    counts=st.booleans(),
)


@st.composite
def rows(draw: st.DrawFn) -> Row:
    target, check = draw(st.sampled_from(NAMES)), draw(st.sampled_from(("capture.insert", "pooling.set")))
    plan = planned(target, check)
    found = replace(
        result(target, check, draw(st.sampled_from(Status))),
        reason=draw(TEXT),
        expectations=tuple(draw(st.lists(EXPECTATIONS, max_size=2))),
        probes=tuple(draw(st.lists(st.builds(BackendProbe, how=TEXT, first_pid=st.just(1), second_pid=st.just(2))))),
        facts=draw(st.dictionaries(TEXT, TEXT, max_size=2)),
        limit=draw(st.none() | st.builds(Limit, outcome=TEXT, source=TEXT)),
        feature=draw(st.none() | FEATURES),
        severity=draw(st.none() | st.sampled_from(Severity)),
        known=draw(
            st.none() | st.just(KnownIssue(check=check, link="https://example.org/1", owner="a", expires="2099-01-01"))
        ),
        reproduce=draw(st.sampled_from((plan.reproduce, "another command", ""))),
    )
    proof = Proof(
        topology=target, check=check, control="c", at="a", proven=draw(st.booleans()), applicable=True, reason=""
    )
    plan = replace(plan, claim=draw(st.sampled_from(("a", "b"))), reproduce=found.reproduce, out_of_scope=draw(TEXT))
    return Row(
        planned=plan,
        result=found,
        run_id=draw(st.sampled_from(("", "20260101T000000Z-aaaaaaaa", "another"))),
        proofs=(proof,) if draw(st.booleans()) else (),
    )


@settings(max_examples=15)
@given(found=st.lists(rows(), unique_by=lambda row: (row.planned.target, row.planned.check)))
def test_no_row_loses_anything(report: Report, found: list[Row]) -> None:
    document = decoded(replace(report, rows=tuple(found)))
    expected = {(row.planned.target, row.planned.check): row for row in found}
    assert {(row.planned.target, row.planned.check): row for row in rows_of(document)} == expected


def test_every_field_of_the_report_is_in_the_document_or_follows_from_the_rows(report: Report) -> None:
    assert set(Report.__struct_fields__) - set(ReportFile.__struct_fields__) == DERIVED - {"rows"}
    document = report_file(report)
    assert [
        name
        for name in Report.__struct_fields__
        if name not in DERIVED
        if getattr(document, name) != getattr(report, name)
    ] == []


def test_what_the_rows_of_a_check_share_is_written_once(report: Report) -> None:
    text = "".join(encoded(report))
    assert text.count("the claim of capture.coverage") == 1
    assert document_of(text)["rows"]["direct"]["capture.coverage"] == {
        "status": "N/A",
        "reason": "there is no pooler in this chain",
        "proven": "",
        "duration_ms": 12.5,
    }


def document_of(text: str) -> dict[str, dict[str, dict[str, object]]]:
    found: dict[str, dict[str, dict[str, object]]] = json.loads(text)
    return found


def test_each_row_has_a_line_of_its_own(report: Report) -> None:
    lines = "".join(encoded(report)).splitlines()
    assert sum(line.startswith('"capture.insert": {"status"') for line in lines) == len(NAMES)


def test_the_schema_is_current() -> None:
    assert json.loads(PUBLISHED.read_text()) == json.loads(json.dumps(schema())), "run python -m tests.schemas"


def test_a_report_is_valid(report: Report, tmp_path: Path, valid: Callable[..., bool]) -> None:
    (path,) = [path for path in render(report, tmp_path) if path.name == "report.json"]
    document = json.loads(path.read_bytes())
    assert valid(document, schema())
    assert not valid(document | {"status": "fine"}, schema())


def test_a_report_without_evidence_is_valid(tmp_path: Path, valid: Callable[..., bool]) -> None:
    empty = build_report(merge([], []), tmp_path)
    assert empty.rows == ()
    assert valid(json.loads("".join(encoded(empty))), schema())
    assert valid(json.loads(msgspec.json.encode(ctrf(empty))), json.loads(CTRF.read_bytes()))


# --- CTRF --------------------------------------------------------------------------------------------------


def test_ctrf_is_valid(report: Report, tmp_path: Path, valid: Callable[..., bool]) -> None:
    (path,) = [path for path in render(report, tmp_path) if path.name == "ctrf.json"]
    document, published = json.loads(path.read_bytes()), json.loads(CTRF.read_bytes())
    assert valid(document, published)
    assert not valid(document | {"reportFormat": "JUnit"}, published)


def test_ctrf_has_a_test_for_each_row_that_is_shown(report: Report) -> None:
    document = json.loads(msgspec.json.encode(ctrf(report)))
    tests = {(*test["suite"][:1], test["name"]): test for test in document["results"]["tests"]}
    assert {key: test["status"] for key, test in tests.items()} == {
        ("direct", "capture.insert"): "passed",
        ("direct", "actor.many-clients"): "passed",
        ("direct", "capture.coverage"): "skipped",
        ("session", "capture.insert"): "skipped",
        ("session", "actor.many-clients"): "failed",
        ("session", "capture.coverage"): "pending",
        ("transaction", "capture.insert"): "passed",
        ("transaction", "actor.many-clients"): "passed",
        ("transaction", "capture.coverage"): "pending",
    }
    failed, known = tests["session", "actor.many-clients"], tests["session", "capture.insert"]
    assert failed["trace"] == "rows: expected 1, observed 0"
    assert failed["extra"]["reproduce"] == planned("session", "actor.many-clients").reproduce
    assert (known["rawStatus"], known["message"]) == (
        "Issue",
        "known (https://example.org/1): rows: expected 1, observed 0",
    )
    summary = document["results"]["summary"]
    assert {name: summary[name] for name in ("tests", "passed", "failed", "skipped", "pending", "other", "suites")} == {
        "tests": 9,
        "passed": 4,
        "failed": 1,
        "skipped": 2,
        "pending": 2,
        "other": 0,
        "suites": 3,
    }
