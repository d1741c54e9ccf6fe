"""Rows of a trail in canonical form, whatever their values are."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from harness.audit.changes import REQUIRED, Change, change_of, problem_of_columns
from harness.audit.target_file import Recorded
from harness.audit.target_loading import load_target, reference_target
from harness.audit.text_values import IMAGE, KEY, holding_texts
from harness.audit.trial import Trial, spelled
from harness.errors import DatabaseError
from tests.tables import each_row

_SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.datetimes() | st.uuids()
)
VALUES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=6
)
OBJECTS = st.none() | st.dictionaries(st.text(), VALUES, max_size=4)
GOOD = st.fixed_dictionaries(
    {
        "id": st.text() | st.integers() | st.uuids(),
        "transaction_id": _SCALARS,
        "table_schema": st.text(),
        "table_name": st.text(),
        "table_pk": OBJECTS,
        "op": st.sampled_from(("insert", "UPDATE", "Delete", "truncate")),
        "data_after": OBJECTS,
        "actor": VALUES,
    },
    optional={
        "changed_fields": st.none() | st.lists(st.text()),
        "changed_from": OBJECTS,
        "captured_at": st.none() | st.datetimes(timezones=st.just(UTC)),
        "action_id": _SCALARS,
        "position": _SCALARS,
    },
)


@given(row=GOOD, own=st.sets(st.text(max_size=2)))
def test_a_row_of_the_right_types_has_a_canonical_form(row: dict[str, Any], own: set[str]) -> None:
    change = change_of(row, own, "mine.toml:3")
    assert change.op == row["op"].lower()
    assert not own & set(change.data_after or {}) | own & set(change.changed_fields or ())
    assert (change.data_after is None) == (row["data_after"] is None)
    for column in ("title", *(row["data_after"] or {})):
        assert isinstance(change.text(column), str)
    assert spelled(change.actor)


@given(row=st.fixed_dictionaries(dict.fromkeys(REQUIRED, VALUES), optional={"changed_fields": VALUES}))
def test_a_row_of_other_types_names_the_column_and_the_place(row: dict[str, Any]) -> None:
    try:
        change = change_of(row, (), "mine.toml:3")
    except DatabaseError as error:
        assert error.where == "mine.toml:3"
        assert error.what.startswith("statements.changes: ")
        assert ", needed " in error.what
    else:
        assert isinstance(change, Change)


_TYPES = {
    **dict.fromkeys(("id", "transaction_id"), "int8"),
    **dict.fromkeys(("table_schema", "table_name", "op"), "text"),
    **dict.fromkeys(("table_pk", "data_after", "actor"), "jsonb"),
}


@each_row(
    ("types", "problem"),
    [
        ({}, ""),
        ({"table_schema": "name", "op": '"char"'}, ""),
        ({"data_after": "text", "changed_from": "text"}, ""),  # NULL without a type
        ({"op": ""}, ""),  # an enumeration
        ({"captured_at": "timestamptz", "changed_fields": "text[]", "position": "int8"}, ""),
        ({"table_pk": "int4"}, "the column table_pk is int4, needed json or jsonb"),
        ({"captured_at": "timestamp"}, "the column captured_at is timestamp, needed timestamptz"),
        ({"changed_fields": "jsonb"}, "the column changed_fields is jsonb, needed text[]"),
    ],
)
def test_columns_of_another_type_are_named_with_both_types(types: dict[str, str], problem: str) -> None:
    assert problem_of_columns(_TYPES | types) == problem


def test_missing_columns_are_named() -> None:
    types = {name: kind for name, kind in _TYPES.items() if name not in {"actor", "op"}}
    assert problem_of_columns(types) == "missing column op, actor"


def test_checks_that_depend_on_a_missing_property_point_to_its_row() -> None:
    trial = Trial(missing={Recorded.ACTOR: "the inserted row has no actor"})
    assert trial.lacking(Recorded.ACTOR) == "the trail records no actor: see trail.actor"
    assert trial.lacking(Recorded.ORDER) is None
    failed = Trial(missing={Recorded.INSERTS: "the audited insert failed: 22023"}, failed=Recorded.INSERTS)
    assert failed.lacking(Recorded.INSERTS) == "the trail records no inserts: see trail.inserts"
    assert failed.lacking(Recorded.ACTOR) == (
        "a trial of the trail shows nothing about who made a change: see trail.inserts"
    )


@pytest.mark.parametrize(
    ("key", "image", "texts"),
    [
        ({"id": "1", "flag": "t"}, {"id": "1", "flag": "t", "title": "a"}, {KEY, IMAGE}),
        ({"id": 1, "flag": True}, {"id": "1", "flag": "true", "title": None}, {IMAGE}),
        ({"id": "1", "flag": "t"}, {"id": 1, "flag": True}, {KEY}),
        ({"id": "1", "flag": True}, {"id": "1", "flag": True}, set()),  # a trail with types whose numbers are texts
        ({"id": "1"}, {"id": "1"}, {KEY}),
        (None, None, set()),
    ],
)
def test_a_trail_of_texts_holds_a_number_and_a_truth_value_as_texts(key: Any, image: Any, texts: set[str]) -> None:
    row = dict.fromkeys(REQUIRED) | {"id": 1, "table_schema": "public", "table_name": "tried"}
    found = [
        change_of(row | {"op": "insert", "table_pk": key, "data_after": image}, (), ""),
        change_of(row | {"op": "delete", "table_pk": key}, (), ""),
    ]
    assert holding_texts(found) == texts


@pytest.mark.parametrize(
    ("texts", "omits", "read_back"),
    [
        ({KEY, IMAGE}, set(), {KEY, IMAGE}),
        ({IMAGE}, set(), {IMAGE}),
        ({KEY}, set(), set()),  # images with types show what the types are
        ({KEY}, {Recorded.IMAGE}, {KEY}),
    ],
)
def test_texts_are_read_back_unless_images_have_types(
    texts: set[str], omits: set[Recorded], read_back: set[str]
) -> None:
    trial = Trial(missing={}, texts=frozenset(texts))
    assert replace(load_target("plain-trigger"), trial=trial, omits=frozenset(omits)).texts == read_back


def test_nothing_is_read_back_without_a_trial() -> None:
    assert load_target("plain-trigger").texts == reference_target().texts == frozenset()


def test_checks_that_write_without_an_actor_point_to_what_the_trail_does_with_it() -> None:
    plain = load_target("plain-trigger")
    assert plain.may_write_undeclared
    refused = replace(plain, trial=Trial(missing={Recorded.UNDECLARED: "the insert without an actor failed: P0001"}))
    assert refused.lacking(Recorded.UNDECLARED) == (
        "the trail treats a write without an actor in another way than `[actor]` says: see trail.undeclared"
    )
    assert refused.lacking(Recorded.ACTOR) is None
    assert not refused.may_write_undeclared
    required = replace(plain, actor=replace(plain.actor, required=True))
    assert required.lacking(Recorded.UNDECLARED) is None
    assert not required.may_write_undeclared
    nameless = replace(plain, trial=Trial(missing={Recorded.ACTOR: "the inserted row has no actor"}))
    assert nameless.lacking(Recorded.UNDECLARED) == "the trail records no actor: see trail.actor"


def test_a_trail_without_the_column_of_times_records_none() -> None:
    target = reference_target()
    assert target.records(Recorded.TIME)  # nobody has tried yet
    for found, records in (({"captured_at"}, True), (set[str](), False)):
        tried = replace(load_target("plain-trigger"), columns=frozenset(found))
        assert tried.records(Recorded.TIME) is records


def test_a_change_keeps_its_time() -> None:
    at = datetime(2026, 11, 29, 4, tzinfo=UTC)
    row = dict.fromkeys(REQUIRED) | {"id": uuid4(), "table_schema": "a", "table_name": "b", "op": "insert"}
    assert change_of(row | {"captured_at": at}, (), "").captured_at == at
    with pytest.raises(DatabaseError, match="captured_at is 'yesterday', needed a timestamptz, or NULL"):
        change_of(row | {"captured_at": "yesterday"}, (), "")
