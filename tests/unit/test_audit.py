"""The library of the reference layer: the parts that need no server."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.audit.actor import Actor, ActorError
from harness.audit.coverage import TableCoverage, differences, violations
from harness.audit.export import _Csv, _Json, _Ndjson, guard, unguard  # the writers, tested without a server
from harness.audit.job import actor_from_args, context_from_args, job_args
from harness.audit.reading import AuditedChange, Filter, FilterError, diff, read_change
from harness.audit.retention import Policy, RetentionError
from harness.audit.telemetry import Event, Telemetry
from tests.tables import each_row

NOW = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
IDS = st.text(min_size=1).filter(str.strip)


# --- actors and jobs ------------------------------------------------------------------------------------------


@given(st.sampled_from([kind for kind in Actor.TYPES if kind != "anonymous"]), IDS)
def test_an_actor_survives_its_map_and_its_setting(kind: str, identity: str) -> None:
    actor = Actor(kind, identity)
    assert Actor.from_map(actor.reference) == Actor.from_map(json.loads(actor.setting)) == actor


def test_an_anonymous_actor_has_no_id() -> None:
    assert Actor("anonymous", "10.0.0.7") == Actor("anonymous") == Actor.from_map({"type": "anonymous", "id": 7})
    assert Actor("anonymous", "10.0.0.7").reference == {"type": "anonymous"}


@each_row(
    ("given_map", "tag"),
    [
        ({"type": "root", "id": "1"}, "unknown_actor_type"),
        ({"type": "user"}, "missing_actor_id"),
        ({"type": "user", "id": None}, "missing_actor_id"),
        ({"type": "user", "id": ""}, "missing_actor_id"),
        ({"type": "user", "id": " \t"}, "missing_actor_id"),
        ({"type": "user", "id": 1}, "missing_actor_id"),
        ({"id": "1"}, "invalid_actor_ref_map"),
        ({"type": 1}, "invalid_actor_ref_map"),
        ("user", "invalid_actor_ref_map"),
        (None, "invalid_actor_ref_map"),
    ],
)
def test_an_invalid_actor_is_refused_with_its_tag(given_map: object, tag: str) -> None:
    with pytest.raises(ActorError) as caught:
        Actor.from_map(given_map)
    assert caught.value.tag == tag


def test_job_arguments_survive_a_queue() -> None:
    args = json.loads(json.dumps(job_args(Actor("user", "ada"), correlation_id="c-1") | {"post": 7}))
    assert args == {"actor_ref": {"type": "user", "id": "ada"}, "correlation_id": "c-1", "post": 7}
    assert actor_from_args(args) == actor_from_args(args) == Actor("user", "ada")
    assert context_from_args(args) == {"correlation_id": "c-1", "job_id": None}
    assert context_from_args(args, job_id="j", correlation_id="other") == {"correlation_id": "other", "job_id": "j"}
    assert actor_from_args(job_args(Actor("anonymous"))) == Actor("anonymous")


@pytest.mark.parametrize("args", [{}, {"actor_ref": None}, {"actor_ref": "ada"}])
def test_a_job_without_an_actor_is_refused(args: dict[str, Any]) -> None:
    with pytest.raises(ActorError, match=r"job_args\(\)") as caught:
        actor_from_args(args)
    assert caught.value.tag == "missing_actor_ref"


def test_an_unknown_name_in_a_job_context_is_refused() -> None:
    with pytest.raises(TypeError, match="corelation_id"):
        context_from_args({}, corelation_id="c")


# --- retention ------------------------------------------------------------------------------------------------


def test_a_policy_has_one_window() -> None:
    assert Policy(keep_days=30).seconds == 30 * 86_400
    assert Policy(max_age_seconds=60).seconds == 60
    assert not Policy(keep_days=1).enabled


@each_row(
    "given_policy",
    [
        {},
        {"keep_days": 1, "max_age_seconds": 1},
        {"keep_days": 0},
        {"keep_days": -1},
        {"max_age_seconds": 0},
        {"keep_days": 1.5},
        {"keep_days": "30"},
        {"keep_days": True},
        {"keep_days": 1, "enabled": "yes"},
        {"keep_days": 1, "delete_empty_transactions": None},
    ],
)
def test_an_invalid_policy_is_refused(given_policy: dict[str, Any]) -> None:
    with pytest.raises(RetentionError, match="retention: "):
        Policy(**given_policy)


# --- coverage ---------------------------------------------------------------------------------------------------


def table(name: str, problem: str | None = None) -> TableCoverage:
    return TableCoverage(table_schema="public", table_name=name, problem=problem)


def test_violations_concern_expected_tables_only_with_missing_ones_first() -> None:
    tables = [table("a"), table("b", "no capture"), table("c", "no capture")]
    assert violations(tables, ["a"]) == []
    broken = violations(tables, ["b", "z", "a", "public.b", "other.a"])
    assert [(violation.kind, violation.name) for violation in broken] == [
        ("missing", "other.a"),
        ("missing", "public.z"),
        ("uncovered", "public.b"),
    ]


@pytest.mark.parametrize("expected", [[], [""], ["a", " "]])
def test_a_policy_without_tables_is_refused(expected: list[str]) -> None:
    with pytest.raises(ValueError, match="expected tables"):
        violations([table("a")], expected)


def test_differences_name_both_environments() -> None:
    assert differences({"t": "1"}, {"t": "1"}) == []
    assert differences({"t": "1", "u": "1"}, {"t": "2", "v": "1"}, ("staging", "production")) == [
        "t: staging has 1, production has 2",
        "u: only in staging",
        "v: only in production",
    ]


# --- reading ------------------------------------------------------------------------------------------------------


@each_row(
    ("given_filter", "message"),
    [
        ({"tabel": "x"}, "did you mean table"),
        ({"tabel": "x", "actor": None}, "tabel"),
        ({"table": None}, "leave the key out"),
        ({"table": ""}, "needed a text that is not blank"),
        ({"correlation_id": None}, "leave the key out"),
        ({"correlation_id": " "}, "needed a text that is not blank"),
        ({"correlation_id": "ü" * 129}, "256 bytes"),
        ({"correlation_id": 7}, "needed a text that is not blank"),
        ({"captured_from": datetime(2026, 1, 1)}, "with a zone"),  # noqa: DTZ001 -- that is the mistake
        ({"captured_to": "2026-01-01"}, "with a zone"),
        ({"actor": {"type": "user", "id": "1"}}, "needed an Actor"),
    ],
)
def test_an_invalid_filter_is_refused(given_filter: dict[str, Any], message: str) -> None:
    with pytest.raises(FilterError, match=message):
        Filter.from_map(given_filter)


def test_a_filter_restricts_by_its_fields() -> None:
    assert Filter().conditions() == ([], {})
    names, values = Filter(table="Shop.Order.Items", correlation_id=" c ").conditions()
    assert names == ["table_name", "table_schema", "correlation_id"]
    assert values == {"table_name": "Order.Items", "table_schema": "Shop", "correlation_id": "c"}


def change(op: str = "update", **more: Any) -> AuditedChange:
    given_change: dict[str, Any] = {
        "id": "c",
        "transaction_id": "t",
        "table_schema": "public",
        "table_name": "posts",
        "table_pk": {"id": 1},
        "op": op,
        "data_after": {"id": 1, "b": 2, "a": "x"},
        "changed_fields": None,
        "changed_from": None,
        "captured_at": NOW,
        "occurred_at": NOW,
        "actor_ref": None,
        "source": None,
        "action_id": None,
        "correlation_id": None,
    }
    return AuditedChange(**(given_change | more))


def test_a_diff_marks_known_and_omitted_prior_values() -> None:
    result = diff(change(changed_fields=["b", "a"], changed_from={"a": "w"}))
    assert result["before_values"] == "sparse"
    assert result["field_changes"] == [
        {"name": "a", "after": "x", "before": "w"},
        {"name": "b", "after": 2, "prior_state": "omitted"},
    ]
    result = diff(change(changed_fields=["a"]))
    assert (result["before_values"], result["field_changes"]) == ("none", [{"name": "a", "after": "x"}])
    assert (result["schema_version"], result["op"]) == (1, "UPDATE")


def test_inserts_and_deletes_have_no_field_changes_by_default() -> None:
    assert diff(change("insert"))["field_changes"] == []
    assert diff(change("delete", data_after=None))["field_changes"] == []
    fields = diff(change("insert"), expand_inserts=True)["field_changes"]
    assert [field["name"] for field in fields] == ["a", "b", "id"]
    assert {field["op"] for field in fields} == {"set"}


def test_an_unknown_operation_is_refused_by_diff() -> None:
    with pytest.raises(ValueError, match="'upsert'"):
        diff(change("upsert"))


def test_numbers_of_the_trail_are_exact() -> None:
    image = '{"n": 1234567890123456789012345678.90, "i": 9007199254740993}'
    row = ("c", "t", "public", "posts", '{"id": 1}', "insert", image, None, None, NOW, NOW, None, None, None, None)
    assert read_change(row).data_after == {"n": Decimal("1234567890123456789012345678.90"), "i": 9007199254740993}


# --- export ---------------------------------------------------------------------------------------------------------


@given(st.text())
def test_a_guarded_cell_is_not_a_formula_and_can_be_restored(cell: str) -> None:
    assert unguard(guard(cell)) == cell
    assert not guard(cell).startswith(("=", "+", "-", "@", "\t", "\r"))


# a PostgreSQL text contains neither NUL nor a lone surrogate
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@given(TEXTS, TEXTS, st.dictionaries(TEXTS, TEXTS | st.none() | st.integers() | st.lists(TEXTS)))
def test_exported_rows_can_be_read_back(name: str, correlation: str, image: dict[str, Any]) -> None:
    text = json.dumps(image)
    row = ("c", "t", "public", name, '{"id": 1}', "insert", text, [name], None, NOW, NOW, None, None, "a", correlation)
    sink = io.StringIO(newline="")
    _Csv(sink, action_metadata=True).write(row)
    [cells] = list(csv.reader(io.StringIO(sink.getvalue(), newline=""), strict=True))
    assert len(cells) == 13
    assert (unguard(cells[3]), unguard(cells[11]), json.loads(cells[7])) == (name, correlation, image)
    for kind in (_Json, _Ndjson):
        sink = io.StringIO(newline="")
        kind(sink, action_metadata=True).write(row)
        document = json.loads(sink.getvalue())
        assert (document["table_name"], document["action"]["correlation_id"]) == (name, correlation)
        assert (document["data_after"], document["changed_fields"]) == (image, [name])


# --- telemetry --------------------------------------------------------------------------------------------------


def test_an_exception_in_a_listener_affects_neither_the_work_nor_other_listeners(
    caplog: pytest.LogCaptureFixture,
) -> None:
    to, events = Telemetry(), list[Event]()

    def failing_listener(_event: object) -> None:
        raise RuntimeError("no")

    to.attach(failing_listener)
    detach = to.attach(events.append)
    to.emit("threadline.health.checked", covered=1)
    detach()
    to.emit("threadline.health.checked", covered=2)
    assert [event.measurements for event in events] == [{"covered": 1}]
    assert "a telemetry listener failed at threadline.health.checked" in caplog.text
