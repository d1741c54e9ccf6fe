"""The mutations of the rows that checks read: data, pure, and each changes what its name says."""

from __future__ import annotations

import pickle
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from harness.audit.actor_convention import IdType
from harness.audit.changes import Change
from harness.audit.statements import statement_of
from harness.audit.target_file import Recorded, TrailFeature
from harness.audit.target_loading import load_target, reference_target
from harness.audit.text_values import IMAGE as IMAGE_COLUMN
from harness.audit.text_values import KEY
from harness.audit.trial import Trial
from harness.database import Side, origin_of
from harness.mutants.observed import MUTATIONS
from harness.mutants.observed_queries import query_of
from harness.mutants.observed_reading import Reading, mutated, watched
from harness.mutants.observed_rows import Row, known
from tests.tables import each_row

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.mutants.observed_mutation import Mutation

BY_NAME = {mutation.name: mutation for mutation in MUTATIONS}
BEGAN = datetime(2026, 1, 1, 12, 30, 15, 250000, tzinfo=UTC)
IMAGE: dict[str, Any] = {
    "id": 41,
    "Näme ok": 'Łódź, it\'s "fine"\\',
    "note": " two\nlines and much more than eight characters, and then so many that it has more than sixty-three ",
    "empty": "",
    "digits": "0042",
    "half": "0.5",
    "many": "9" * 5000,
    "nothing": None,
    "price": "1.50",
    "exact": Decimal("2.50"),
    "ratio": -1.375,
    "zero": 0,
    "large": 2**53 + 1,
    "yes": True,
    "no": False,
    "nested": {"a": [1, 2], "b": {"c": 3}},
    "list": [3, 1, 2],
    "at": "2026-01-01T12:30:15.25+02:00",
    "local": "2026-01-01 12:30:15",
    "raw": "\\xdeadbeef",
    "uuid": "6f1e2d3c-0000-4000-8000-00000000abcd",
    "last": "x",
}
ADA, BOB = (
    {"type": "user", "id": "Ada"},
    {"type": "admin", "id": " 0'bób, whose id has more than sixteen characters" + "x" * 30},
)


def row(number: int, op: str, transaction: int, actor: Any, table: str = "posts", **columns: Any) -> Row:
    return {
        "id": number,
        "transaction_id": f"t{transaction}0",
        "table_schema": "public",
        "table_name": table,
        "table_pk": {"id": 41},
        "op": op,
        "data_after": None if op in {"delete", "truncate"} else {**IMAGE, "number": number},
        "actor": actor,
        "txid": 1000 + transaction,
        "changed_fields": ["Näme ok", "number"] if op == "update" else None,
        "changed_from": {**IMAGE, "number": number - 1, "nothing": "a"} if op == "update" else None,
        "action_id": f"a{transaction}" if actor else None,
        "captured_at": BEGAN + timedelta(seconds=number),
        **columns,
    }


OTHER_KEY: dict[str, Any] = {"Tenant": "Abc-4567890", "ñ": -2, "day": "2026-01-01T12:30:15+00", "u": IMAGE["uuid"]}
ROWS = [
    row(1, "insert", 1, ADA),
    row(2, "update", 1, ADA),
    row(3, "update", 1, ADA, changed_from={**IMAGE, "number": 1, "list": [2], "zero": 7}),
    row(
        4,
        "insert",
        2,
        None,
        table='Order "Items" of. Łódź' + "x" * 30,
        table_schema='The "shop". näme' + "x" * 30,
        table_pk=OTHER_KEY,
    ),
    row(5, "update", 2, None, changed_from={"id": 40}),
    row(6, "insert", 3, BOB, table="zebras", table_pk={"id": 42}),
    row(7, "insert", 3, BOB, table_pk={"id": 43}),
    row(8, "delete", 3, BOB, table_pk={"id": 43}),
    row(9, "insert", 3, BOB, table_pk={"id": 44}),
    row(10, "truncate", 4, {"type": "anonymous"}, table_pk=None, data_after=None),
    row(11, "insert", 5, {"type": "user", "id": "007"}, table_pk={"id": 45}),
    row(12, "delete", 6, ADA),
    row(13, "truncate", 6, ADA, table_pk=None),
    row(14, "truncate", 6, ADA, table_pk=None),
    *(row(100 + n, "insert", 7, ADA, table_pk={"id": 100 + n}) for n in range(60)),
]
#: such rows follow each other rarely, and equal ones have equal images
ROWS[13] = {**ROWS[12], "id": 14}
#: unpickling makes a deep copy much faster than `copy.deepcopy`
PICKLED = pickle.dumps(ROWS)
SHOWN = known(ROWS)


def read(mutation: Mutation, rows: list[Row], reads: int = 2) -> list[list[Row]]:
    hook = mutation.started()
    return [hook(rows) for _ in range(reads)]


def test_the_list_covers_every_column_that_a_target_may_return() -> None:
    assert len(MUTATIONS) >= 120
    assert Counter(mutation.name for mutation in MUTATIONS).most_common(1)[0][1] == 1
    columns = {mutation.column for mutation in MUTATIONS}
    assert columns == {*Change.__struct_fields__, "captured_at", "row"}


@each_row("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mutation_changes_its_column_and_nothing_that_it_was_given(mutation: Mutation) -> None:
    rows = pickle.loads(PICKLED)  # noqa: S301 -- made above
    first, second = read(mutation, rows)
    assert rows == ROWS
    assert known(first) != SHOWN or known(second) != SHOWN
    assert re.fullmatch(r"[a-z_]+\.[a-z0-9-]+", mutation.name)
    assert mutation.what
    assert not mutation.what.endswith(".")
    if mutation.column != "row" and mutation.name != "table_name.schema-instead":
        assert len(first) == len(ROWS)
        for mutated, plain in zip(first, ROWS, strict=True):
            assert {name for name in plain if known(plain[name]) != known(mutated[name])} <= {mutation.column}


@each_row("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mutation_reads_an_empty_trail_and_rows_without_optional_columns(mutation: Mutation) -> None:
    assert read(mutation, []) == [[], []]
    bare = [{name: None if name != "op" else "insert" for name in ROWS[0]} for _ in range(2)]
    required = ("id", "transaction_id", "table_schema", "table_name", "table_pk", "op", "data_after", "actor")
    few = [{name: found[name] for name in required} for found in ROWS]
    for rows in (bare, few):
        for changed in read(mutation, rows):
            assert all(set(found) <= set(rows[0]) for found in changed if mutation.column != "row")


@given(st.lists(st.sampled_from(ROWS), max_size=8))
def test_no_mutation_fails_on_any_order_of_rows(rows: list[Row]) -> None:
    for mutation in MUTATIONS:
        read(mutation, rows)


@each_row(
    ("name", "column", "number", "value"),
    [
        ("actor.ids-cut-to-2", "actor", 0, {"type": "user", "id": "Ad"}),
        ("actor.kept-for-nobody", "actor", 3, ADA),
        ("actor.of-the-transaction-before", "actor", 5, None),
        ("actor.ids-as-numbers", "actor", 10, {"type": "user", "id": 7}),
        ("transaction_id.pairs-merged", "transaction_id", 3, "t10"),
        ("transaction_id.reused", "transaction_id", -1, "t10"),
        ("transaction_id.first-row-attached-to-another", "transaction_id", 3, "t10"),
        ("transaction_id.last-row-attached-to-another", "transaction_id", 2, "t20"),
        ("table_pk.always-id", "table_pk", 3, {"id": "Abc-4567890", **dict(list(OTHER_KEY.items())[1:])}),
        ("op.delete-as-update", "op", 7, "update"),
        ("changed_fields.one-more", "changed_fields", 1, ["Näme ok", "number", "id"]),
        ("captured_at.midnight", "captured_at", 0, datetime(2026, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_mutation_does_what_its_name_says(name: str, column: str, number: int, value: object) -> None:
    assert read(BY_NAME[name], ROWS)[0][number][column] == value


@each_row(
    ("name", "column", "value"),
    [
        ("data_after.texts-cut-to-8", "digits", "0042"),
        ("data_after.texts-on-one-line", "note", IMAGE["note"].replace("\n", " ")),
        ("data_after.digits-as-numbers", "digits", 42),
        ("data_after.digits-as-numbers", "half", 0.5),
        ("data_after.digits-as-numbers", "many", Decimal("9" * 5000)),
        ("data_after.scales-dropped", "price", "1.5"),
        ("data_after.scales-dropped", "exact", Decimal("2.5")),
        ("data_after.integers-as-doubles", "large", 2**53),
        ("data_after.numbers-in-32-bits", "large", 1),
        ("data_after.booleans-as-text", "yes", "true"),
        ("data_after.nested-flat", "nested", {"a": None, "b": None}),
        ("data_after.zones-dropped", "at", "2026-01-01T12:30:15.25"),
        ("data_after.zones-dropped", "local", IMAGE["local"]),
        ("data_after.seconds-cut", "local", IMAGE["local"]),
        ("data_after.seconds-cut", "at", "2026-01-01T12:30:15+02:00"),
        ("data_after.bytes-as-base64", "raw", "3q2+7w=="),
        ("data_after.values-shifted", "id", IMAGE["Näme ok"]),
    ],
)
def test_a_value_is_changed_the_way_a_faulty_trail_would(name: str, column: str, value: object) -> None:
    assert read(BY_NAME[name], ROWS)[0][0]["data_after"][column] == value


def test_rows_are_dropped_doubled_moved_and_delayed() -> None:
    def ids(name: str, reading: int = 0, rows: list[Row] = ROWS[:6]) -> list[Any]:
        return [found["id"] for found in read(BY_NAME[name], rows)[reading]]

    assert ids("row.updates-merged") == [1, 3, 4, 5, 6]
    assert ids("row.later-updates-dropped") == [1, 2, 4, 5, 6]
    assert ids("row.one-per-transaction") == [1, 4, 6]
    assert ids("row.equal-dropped", rows=ROWS[11:14]) == [12, 13]
    assert ids("row.neighbours-swapped") == [2, 1, 3, 5, 4, 6]
    assert ids("row.transactions-reversed") == [6, 4, 5, 1, 2, 3]
    assert ids("row.updates-doubled")[:4] == [1, 2, "2-2", 3]
    assert ids("row.last-delayed") == [1, 2, 3, 4, 5]
    assert ids("row.last-delayed", 1) == [1, 2, 3, 4, 5, 6]
    assert len(ids("row.tenth-dropped", rows=ROWS)) == len(ROWS) - 50


def test_what_a_sound_trail_can_show_is_left_out() -> None:
    plain, reference = load_target("plain-trigger"), reference_target()
    assert BY_NAME["op.upper-cased"].left_out(reference) == "the harness reads operations in any case"
    equal = "values are compared as their types compare, so another text of an equal value shows nothing"
    for name in ("data_after.scales-dropped", "data_after.uuids-without-dashes", "changed_from.scales-dropped"):
        assert BY_NAME[name].left_out(reference) == equal
    # keys are compared as they are shown
    assert BY_NAME["table_pk.uuids-without-dashes"].left_out(reference) == ""
    in_texts = replace(plain, trial=Trial(missing={}, texts=frozenset({KEY, IMAGE_COLUMN})))
    assert BY_NAME["table_pk.uuids-without-dashes"].left_out(in_texts) == equal
    assert BY_NAME["table_pk.numbers-negated"].left_out(in_texts) == ""
    assert BY_NAME["changed_from.null"].left_out(reference) == ""
    assert BY_NAME["changed_from.null"].left_out(plain) == TrailFeature.CHANGED_FROM.unclaimed
    assert BY_NAME["actor.null"].left_out(plain) == ""
    numbered = replace(plain, actor=replace(plain.actor, ids=IdType.INTEGER), omits=frozenset({Recorded.ORDER}))
    assert "integer" in BY_NAME["actor.ids-upper-cased"].left_out(numbered)
    assert BY_NAME["actor.ids-cut-to-2"].left_out(numbered) == ""
    assert BY_NAME["row.reversed"].left_out(numbered) == Recorded.ORDER.omitted
    required = replace(plain, actor=replace(plain.actor, required=True))
    for name in ("row.nobodys-dropped", "actor.kept-for-nobody", "actor.somebody-for-nobody"):
        assert BY_NAME[name].left_out(plain) == ""
        assert BY_NAME[name].left_out(required) == "the trail refuses writes without an actor"
    few = replace(plain, columns=frozenset({"id", "changed_fields"}))
    assert BY_NAME["txid.null"].left_out(few) == "the audit target's changes have no column txid"
    assert BY_NAME["captured_at.null"].left_out(few) == Recorded.TIME.omitted
    assert sum(not mutation.left_out(plain) for mutation in MUTATIONS) >= 120


# --- what a check reads --------------------------------------------------------------------------------------


def noting(rows: list[Row]) -> tuple[Reading, list[Change]]:
    """Return the reading of a check that has read these rows, and their changes."""
    reading = Reading()
    fields = Change.__struct_fields__
    changes = [Change(**{name: found[name] for name in fields if name in found}) for found in reading.keep(rows)]
    return reading, reading.noting(changes)


@pytest.mark.parametrize(
    ("columns", "name", "expected"),
    [
        (("op",), "actor.null", False),
        (("op", "actor"), "actor.null", True),
        ((), "row.last-dropped", True),
        ((), "row.reversed", False),
        (("id",), "row.reversed", True),
        (("data_after",), "data_after.texts-emptied", True),
    ],
)
def test_a_check_can_notice_what_it_looks_at(columns: tuple[str, ...], name: str, *, expected: bool) -> None:
    reading, changes = noting(ROWS)
    for change in changes:
        for column in columns:
            getattr(change, column)
    assert reading.seen == set(columns)
    assert reading.may_notice(BY_NAME[name]) is expected
    assert reading.meets(BY_NAME[name])


def test_a_mutation_is_not_met_where_no_row_has_its_value() -> None:
    reading, _ = noting(ROWS[7:8])
    assert not reading.meets(BY_NAME["data_after.texts-emptied"])
    assert reading.meets(BY_NAME["op.delete-as-update"])


@pytest.mark.parametrize(
    "look",
    [repr, lambda change: change == change, lambda change: change.text("id")],  # noqa: PLR0124 -- its comparison is tried
    ids=["its text", "its comparison", "a column of its image"],
)
def test_looking_at_a_whole_change_counts_for_its_columns(look: Callable[[Change], object]) -> None:
    reading, changes = noting(ROWS)
    look(changes[0])
    assert "data_after" in reading.seen


def test_a_change_that_notes_its_reads_equals_the_plain_one() -> None:
    (_, changes), (_, others) = noting(ROWS), noting(ROWS)
    assert changes == others
    assert changes[0] != changes[1]
    assert (changes[0].text("id"), hash(changes[0])) == ("41", hash(others[0]))


def test_a_watched_target_is_the_same_target() -> None:
    target = reference_target()
    found = watched(target, Reading())
    assert (found.identity, found.is_reference, found.statements) == (target.identity, True, target.statements)
    assert replace(target, observed=BY_NAME["actor.null"].started()).identity == target.identity


def test_a_check_that_reads_too_much_may_notice_anything() -> None:
    reading = Reading()
    for _ in range(1000):
        reading.keep(ROWS)
    assert reading.is_cut
    assert reading.may_notice(BY_NAME["txid.null"])


@pytest.mark.parametrize(
    "number", [Decimal("9" * 40 + ".50"), Decimal("1E+130000"), Decimal("NaN"), float("inf"), 10**30]
)
def test_numbers_of_any_size_are_mutated(number: float | Decimal) -> None:
    found = row(1, "insert", 1, ADA, data_after={"number": number})
    for mutation in MUTATIONS:
        read(mutation, [found])
    negated = read(BY_NAME["data_after.numbers-negated"], [found])[0][0]["data_after"]["number"]
    assert str(negated).lstrip("-") == str(number)
    assert str(negated) != str(number) or str(number) == "NaN"


# --- queries over mutated rows -------------------------------------------------------------------------------


def test_mutated_rows_are_a_query_with_the_same_columns() -> None:
    values = {"a": Decimal("1.50"), "b": "5% it's \\ ü", "c": None}
    shown = query_of([{"id": 1, "data_after": values, "more": "left out"}], {"id": "bigint", "data_after": "jsonb"})
    assert '"a":1.50' in shown
    assert "%" not in shown
    assert "it''s" in shown
    assert "left out" not in shown
    assert shown.startswith("SELECT (r ->> 'id')::text AS \"id\", CASE WHEN json_typeof(r -> 'data_after') <> 'null'")


def test_a_mutated_operation_is_a_text_where_the_trail_has_a_type_of_its_own() -> None:
    assert "(r ->> 'op')::text AS \"op\"" in query_of([{"op": "insertd"}], {"op": "log.operation"})


def test_a_query_of_the_trail_that_fails_is_its_error_also_where_its_rows_are_watched_or_mutated() -> None:
    class Failing:
        def execute(self, *_: object) -> None:
            raise psycopg.errors.ProgramLimitExceeded("too large")

    target: Any = load_target("plain-trigger")
    for read in (watched(target, Reading()), mutated(target, BY_NAME["op.upper-cased"])):
        with pytest.raises(psycopg.Error) as caught:
            read.changes_query(Failing())  # type: ignore[arg-type]
        origin = origin_of(caught.value)
        assert origin is not None
        assert origin.side is Side.TARGET
        assert statement_of(caught.value).startswith("statements.changes (plain-trigger.toml:")
