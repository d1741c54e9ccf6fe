"""The mutations of keys, images and prior values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from harness.audit.target_file import Recorded, TrailFeature
from harness.mutants import observed_columns as columns
from harness.mutants.observed_columns import column, objects, values
from harness.mutants.observed_mutation import Mutation, mutation
from harness.mutants.observed_rows import Row, same_kind
from harness.mutants.observed_values import NUMBERS, OTHERS, TEXTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from harness.mutants.observed_values import ValueOperator

_EQUAL = "values are compared as their types compare, so another text of an equal value shows nothing"


def _of_op(op: str) -> Callable[[Row], bool]:
    return lambda row: same_kind(row, op)


def _values(
    name: str,
    noun: str,
    operators: Iterable[ValueOperator],
    *,
    feature: TrailFeature | None = None,
    records: Recorded | None = None,
    as_texts: bool = False,
) -> tuple[Mutation, ...]:
    """Return a mutation for each operator on the values of a column.

    :param as_texts: whether a check compares the texts of these values, so that an equal value with another text is
        noticed.
    """

    def of(operator: ValueOperator) -> Callable[[list[Row]], list[Row]]:
        return lambda rows: values(rows, name, operator.apply)

    return tuple(
        replace(
            mutation(
                f"{name}.{operator.name}",
                operator.what.format(values=noun),
                of(operator),
                feature=feature,
                records=records,
                sound=_EQUAL if operator.equal and not as_texts else "",
            ),
            sound_as_texts=_EQUAL if operator.equal else "",
        )
        for operator in operators
    )


#: operators on the names and values of an object
_OBJECTS: tuple[tuple[str, str, Callable[[dict[str, Any]], dict[str, Any]]], ...] = (
    ("emptied", "keeps none of {noun}", lambda _found: {}),
    ("first-dropped", "loses the first of {noun}", columns.without_first),
    ("last-dropped", "loses the last of {noun}", columns.without_last),
    ("names-lower-cased", "turns the names of {noun} into lower case", columns.renamed(str.lower)),
    ("names-upper-cased", "turns the names of {noun} into upper case", columns.renamed(str.upper)),
    ("names-cut", "cuts the names of {noun} to 3 characters", columns.renamed(lambda name: name[:3])),
    (
        "names-in-ascii",
        "replaces letters beyond ASCII in the names of {noun}",
        columns.renamed(lambda name: name.encode("ascii", "replace").decode()),
    ),
    ("ends-exchanged", "exchanges the first and the last value of {noun}", columns.ends_exchanged),
)


def _objects(
    name: str, noun: str, *, feature: TrailFeature | None = None, records: Recorded | None = None
) -> tuple[Mutation, ...]:
    def of(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[list[Row]], list[Row]]:
        return lambda rows: objects(rows, name, change)

    return tuple(
        mutation(f"{name}.{operator}", what.format(noun=noun), of(change), feature=feature, records=records)
        for operator, what, change in _OBJECTS
    )


_KEY_VALUES = frozenset(
    {
        "texts-lower-cased",
        "texts-upper-cased",
        "texts-padded",
        "texts-cut-to-3",
        "texts-cut-to-8",
        "texts-emptied",
        "numbers-as-text",
        "numbers-off-by-one",
        "numbers-negated",
        "numbers-as-zero",
        "times-cut",
        "uuids-without-dashes",
    }
)
_EVERY_VALUE = (*TEXTS, *NUMBERS, *OTHERS)

KEYS = (
    mutation("table_pk.null", "records no key", lambda rows: column(rows, "table_pk", lambda _row: None)),
    mutation(
        "table_pk.null-for-deletes",
        "records no key of deletes",
        lambda rows: column(rows, "table_pk", lambda _row: None, _of_op("delete")),
    ),
    mutation(
        "table_pk.null-for-updates",
        "records no key of updates",
        lambda rows: column(rows, "table_pk", lambda _row: None, _of_op("update")),
    ),
    mutation(
        "table_pk.values-null",
        "records NULL for the values of keys",
        lambda rows: values(rows, "table_pk", lambda _value: None),
    ),
    mutation(
        "table_pk.first-column-only",
        "records the first column of keys",
        lambda rows: objects(rows, "table_pk", columns.first_only),
    ),
    mutation(
        "table_pk.last-column-only",
        "records the last column of keys",
        lambda rows: objects(rows, "table_pk", columns.last_only),
    ),
    mutation(
        "table_pk.always-id",
        "names the first column of every key id",
        lambda rows: objects(
            rows, "table_pk", lambda key: dict(zip(["id", *list(key)[1:]], key.values(), strict=True))
        ),
    ),
    mutation(
        "table_pk.of-the-row-before",
        "records the key of the change before",
        lambda rows: columns.of_rows_before(rows, "table_pk"),
    ),
    mutation(
        "table_pk.of-another-row",
        "exchanges the keys of two changes",
        lambda rows: columns.of_other_row(rows, "table_pk"),
    ),
    mutation(
        "table_pk.one-more",
        "records a column that is not part of the key",
        lambda rows: objects(rows, "table_pk", columns.with_one_more),
    ),
    mutation(
        "table_pk.key-before-update",
        "records the key before an update of the key",
        lambda rows: column(
            rows,
            "table_pk",
            lambda row: {name: row["changed_from"].get(name, value) for name, value in row["table_pk"].items()},
            lambda row: isinstance(row.get("table_pk"), dict) and isinstance(row.get("changed_from"), dict),
        ),
        feature=TrailFeature.CHANGED_FROM,
    ),
    *_objects("table_pk", "the columns of keys"),
    *_values(
        "table_pk", "keys", [operator for operator in _EVERY_VALUE if operator.name in _KEY_VALUES], as_texts=True
    ),
)


def _image(name: str, what: str, apply: Callable[[list[Row]], list[Row]]) -> Mutation:
    return mutation(f"data_after.{name}", what, apply, records=Recorded.IMAGE)


IMAGES = (
    _image("null", "records no image", lambda rows: column(rows, "data_after", lambda _row: None)),
    _image(
        "null-for-inserts",
        "records no image of inserts",
        lambda rows: column(rows, "data_after", lambda _row: None, _of_op("insert")),
    ),
    _image(
        "null-for-updates",
        "records no image of updates",
        lambda rows: column(rows, "data_after", lambda _row: None, _of_op("update")),
    ),
    _image(
        "kept-after-delete", "keeps the image of a deleted row as the image after the delete", columns.kept_after_delete
    ),
    _image(
        "empty-after-delete",
        "records an empty image after a delete",
        lambda rows: column(rows, "data_after", lambda _row: {}, _of_op("delete")),
    ),
    _image("before-update", "records the image before an update", columns.prior_images),
    _image("final", "shows the newest image of a row in all of its changes", columns.final_images),
    _image("only-changed", "records the changed columns of an update only", columns.only_changed),
    _image("only-key", "records the key only", columns.only_key),
    _image(
        "of-the-row-before",
        "records the image of the change before",
        lambda rows: columns.of_rows_before(rows, "data_after"),
    ),
    _image(
        "of-another-row", "exchanges the images of two changes", lambda rows: columns.of_other_row(rows, "data_after")
    ),
    _image(
        "nulls-missing",
        "leaves out columns that are NULL",
        lambda rows: objects(rows, "data_after", columns.without_nulls),
    ),
    _image(
        "one-more",
        "shows a column that the table lacks",
        lambda rows: objects(rows, "data_after", columns.with_one_more),
    ),
    _image(
        "values-shifted",
        "reads values by their position, one column off",
        lambda rows: objects(rows, "data_after", columns.shifted),
    ),
    *_objects("data_after", "the columns of images", records=Recorded.IMAGE),
    *_values("data_after", "images", _EVERY_VALUE, records=Recorded.IMAGE),
)

_FROM = TrailFeature.CHANGED_FROM


def _prior(name: str, what: str, apply: Callable[[list[Row]], list[Row]]) -> Mutation:
    return mutation(f"changed_from.{name}", what, apply, feature=_FROM)


_PRIOR_VALUES = frozenset(
    {
        "texts-lower-cased",
        "texts-upper-cased",
        "texts-cut-to-3",
        "texts-cut-to-8",
        "texts-emptied",
        "numbers-as-text",
        "numbers-off-by-one",
        "numbers-as-zero",
        "zeros-as-null",
        "nulls-as-empty-text",
        "nulls-as-text",
        "booleans-as-text",
        "nested-as-text",
        "nested-emptied",
        "scales-dropped",
        "zones-dropped",
    }
)
PRIOR_VALUES = (
    _prior("null", "keeps no prior values", lambda rows: column(rows, "changed_from", lambda _row: None)),
    _prior(
        "values-null",
        "keeps NULL for every prior value",
        lambda rows: values(rows, "changed_from", lambda _value: None),
    ),
    _prior("new-values", "keeps the new values as prior values", columns.new_as_prior),
    _prior("all-columns", "keeps prior values of columns that did not change", columns.whole_prior_images),
    _prior(
        "nulls-missing",
        "leaves out prior values that were NULL",
        lambda rows: objects(rows, "changed_from", columns.without_nulls),
    ),
    _prior(
        "of-the-first-update",
        "keeps the values before the first update for all updates of a row",
        columns.first_prior_values,
    ),
    _prior("for-inserts", "keeps prior values of inserts", columns.prior_values_of_inserts),
    _prior(
        "of-the-row-before",
        "keeps the prior values of the change before",
        lambda rows: columns.of_rows_before(rows, "changed_from"),
    ),
    _prior(
        "of-another-row",
        "exchanges the prior values of two changes",
        lambda rows: columns.of_other_row(rows, "changed_from"),
    ),
    *_objects("changed_from", "prior values", feature=_FROM),
    *_values(
        "changed_from",
        "prior values",
        [operator for operator in _EVERY_VALUE if operator.name in _PRIOR_VALUES],
        feature=_FROM,
    ),
)


MUTATIONS = (*KEYS, *IMAGES, *PRIOR_VALUES)
