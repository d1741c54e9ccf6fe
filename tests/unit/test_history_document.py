"""docs/resilience.md describes every record of a history and every field of a final state, as the harness writes them."""

from __future__ import annotations

import re
from typing import get_args, get_type_hints

import msgspec
import pytest

from harness.checks.judges import Judge, soak
from harness.model.history import Outcome, Record, Step
from harness.report.curves import _LATENCIES, _RATES
from harness.suites.catalogue import catalogue
from harness.suites.judges import JUDGES
from harness.suites.resilience.faults import FAULTS
from tests.unit.doc_files import blocks, rows, text

DOCUMENT = "docs/resilience.md"


def test_every_field_of_every_record_is_documented() -> None:
    documented = [(record, field) for record, field, _ in rows(DOCUMENT, "Record | Field")]
    structs = {kind.__struct_config__.tag: kind for kind in get_args(Record)}
    assert documented == [(tag, field) for tag, kind in structs.items() for field in kind.__struct_fields__]


def test_the_example_is_what_the_harness_writes() -> None:
    (example,) = blocks(DOCUMENT, "text")
    decoder = msgspec.json.Decoder(Record, strict=True)
    found = [(line, decoder.decode(line)) for line in example.splitlines()]
    assert [msgspec.json.encode(record).decode() for _, record in found] == [line for line, _ in found]
    tags = {record.__struct_config__.tag for _, record in found}
    assert tags == {"opening", "invoke", "answer", "fault"}


@pytest.mark.parametrize(("field", "words"), [("outcome", Outcome), ("step", Step), ("judge", None)])
def test_every_word_of_a_field_is_documented(field: str, words: object) -> None:
    (said,) = [said for _, name, said in rows(DOCUMENT, "Record | Field") if name == field]
    expected = get_args(words) if words else [judge.name for judge in JUDGES]
    assert set(re.findall(r"[a-z-]+", said)) >= set(expected)


def test_every_operation_of_a_load_is_documented_with_its_error() -> None:
    (said,) = [
        said for record, name, said in rows(DOCUMENT, "Record | Field") if (record, name) == ("invoke", "operation")
    ]
    assert {f"`{name}` ({code})" if code else f"`{name}`" for name, code in soak.PLANNED.items()} <= {
        found[0] for found in re.finditer(r"`[a-z]+`(?: \(\w{5}\))?", said.replace("SQLSTATE ", ""))
    }
    assert f"`{soak.REPLAY}`" in said


def test_every_measure_that_a_plot_shows_is_documented() -> None:
    documented = {name for cell, _ in rows(DOCUMENT, "Measure") for name in cell.replace("`", "").split(", ")}
    assert {name.removeprefix("plain ") for name, *_ in (*_RATES, *_LATENCIES)} <= documented


@pytest.mark.parametrize("judge", JUDGES, ids=lambda judge: judge.name)
def test_every_field_of_a_final_state_is_documented(judge: Judge) -> None:
    documented = {
        field: tuple(re.findall(r"\w+", positions))
        for name, field, _, positions in rows(DOCUMENT, "Judge | Field")
        if name == judge.name
    }
    hints = get_type_hints(judge.state)
    assert list(documented) == list(judge.state.__struct_fields__)
    for field, positions in documented.items():
        entries = [kind for kind in get_args(hints[field]) if hasattr(kind, "__struct_fields__")]
        arrays = [kind for kind in entries if kind.__struct_config__.array_like]
        assert positions == tuple(name for kind in arrays for name in kind.__struct_fields__)


def test_every_finding_of_a_load_is_documented() -> None:
    listed = text(DOCUMENT).partition("these findings,")[2].partition("An Issue")[0]
    assert set(re.findall(r"`([^`]+)`", listed)) == set(soak.FINDINGS)
    assert set(soak.Found.__struct_fields__) == {"count", "first"}


def test_the_numbers_of_checks_are_those_of_the_suite() -> None:
    checks = [check for check in catalogue().checks if check.id.startswith("resilience.")]
    jobs = {check.id for check in checks if ".jobs-" in check.id}
    main = sum(fault.main for fault in FAULTS)
    sentence = (
        f"{len(checks)} checks: {len(FAULTS)} faults, of which {main} are in the main job, and {len(jobs)} cases of"
    )
    assert sentence in text(DOCUMENT).replace("\n", " ")
    assert {check for check, _ in rows(DOCUMENT, "Check")} == jobs
