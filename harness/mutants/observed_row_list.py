"""The mutations of whole rows, of their ids and of their transactions."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from harness.audit.target_file import Recorded, TrailFeature
from harness.mutants import observed_columns as columns
from harness.mutants import observed_rows as rows_of
from harness.mutants.observed_columns import column
from harness.mutants.observed_mutation import Mutation, mutation
from harness.mutants.observed_rows import Row, known, same_kind, with_transaction

if TYPE_CHECKING:
    from collections.abc import Callable

_OPAQUE = "the harness compares ids only with each other, so another spelling of all ids shows nothing"


def _of_op(op: str) -> Callable[[Row], bool]:
    return lambda row: same_kind(row, op)


def _transaction(row: Row) -> Any:
    return row.get("transaction_id")


ROWS = (
    mutation("row.all-dropped", "records nothing", lambda _rows: []),
    mutation("row.first-dropped", "loses the first change", lambda rows: rows[1:]),
    mutation("row.last-dropped", "loses the last change", lambda rows: rows[:-1]),
    mutation("row.middle-dropped", "loses a change between others", rows_of.without_middle),
    mutation(
        "row.inserts-dropped",
        "records no inserts",
        lambda rows: rows_of.without(rows, _of_op("insert")),
        records=Recorded.INSERTS,
    ),
    mutation(
        "row.updates-dropped",
        "records no updates",
        lambda rows: rows_of.without(rows, _of_op("update")),
        records=Recorded.UPDATES,
    ),
    mutation(
        "row.deletes-dropped",
        "records no deletes",
        lambda rows: rows_of.without(rows, _of_op("delete")),
        records=Recorded.DELETES,
    ),
    mutation(
        "row.truncates-dropped",
        "records no TRUNCATE",
        lambda rows: rows_of.without(rows, _of_op("truncate")),
        feature=TrailFeature.TRUNCATE,
    ),
    mutation("row.equal-dropped", "keeps one of several equal changes of a transaction", rows_of.one_of_equal),
    mutation(
        "row.updates-merged", "keeps the last of several updates of a row in a transaction", rows_of.last_of_each_row
    ),
    mutation(
        "row.later-updates-dropped",
        "keeps the first of several updates of a row in a transaction",
        rows_of.first_of_each_row,
    ),
    mutation(
        "row.one-per-transaction",
        "keeps one change of each transaction",
        lambda rows: rows_of.first_of_each(rows, lambda row: known(_transaction(row))),
    ),
    mutation(
        "row.one-per-table",
        "keeps one change of each table and operation in a transaction",
        lambda rows: rows_of.first_of_each(
            rows, lambda row: (known(_transaction(row)), row.get("table_schema"), row.get("table_name"), row.get("op"))
        ),
    ),
    mutation(
        "row.one-per-row",
        "keeps the first change of each row",
        lambda rows: rows_of.first_of_each(
            rows, lambda row: (rows_of.row_of(row), known(_transaction(row)) if not row.get("table_pk") else "")
        ),
    ),
    mutation(
        "row.fiftieth-dropped", "records the first 50 changes of a transaction", lambda rows: rows_of.up_to(rows, 50)
    ),
    mutation(
        "row.tenth-dropped", "records the first 10 changes of a transaction", lambda rows: rows_of.up_to(rows, 10)
    ),
    mutation(
        "row.composite-keys-dropped",
        "records nothing of tables whose key has several columns",
        lambda rows: rows_of.without(rows, lambda row: len(row.get("table_pk") or ()) > 1),
    ),
    mutation(
        "row.other-schemas-dropped",
        "records tables of the schema public only",
        lambda rows: rows_of.without(rows, lambda row: row.get("table_schema") != "public"),
    ),
    mutation(
        "row.quoted-names-dropped",
        "records nothing of tables whose names need quotes",
        lambda rows: rows_of.without(
            rows, lambda row: not re.fullmatch("[a-z_][a-z0-9_]*", str(row.get("table_name")))
        ),
    ),
    replace(
        mutation(
            "row.nobodys-dropped",
            "records nothing of writes without an actor",
            lambda rows: rows_of.without(rows, lambda row: row.get("actor") is None),
            records=Recorded.ACTOR,
        ),
        undeclared=True,
    ),
    mutation("row.all-doubled", "records every change twice", lambda rows: rows_of.doubled(rows, lambda _row: True)),
    mutation("row.inserts-doubled", "records inserts twice", lambda rows: rows_of.doubled(rows, _of_op("insert"))),
    mutation("row.updates-doubled", "records updates twice", lambda rows: rows_of.doubled(rows, _of_op("update"))),
    mutation("row.deletes-doubled", "records deletes twice", lambda rows: rows_of.doubled(rows, _of_op("delete"))),
    mutation(
        "row.last-doubled",
        "records the last change twice",
        lambda rows: rows_of.doubled(rows, lambda row: row is rows[-1]),
    ),
    mutation("row.undone-kept", "keeps a change that was rolled back", rows_of.with_undone),
    mutation("row.updates-as-pairs", "records an update as a delete and an insert", rows_of.updates_as_pairs),
    mutation("row.pairs-as-updates", "records a delete and the insert after it as an update", rows_of.pairs_as_updates),
    mutation(
        "row.neighbours-swapped",
        "exchanges the first two changes of a transaction",
        rows_of.neighbours_swapped,
        records=Recorded.ORDER,
    ),
    mutation("row.last-swapped", "exchanges the last two changes", rows_of.last_two_swapped, records=Recorded.ORDER),
    mutation("row.reversed", "records changes in the reverse order", lambda rows: rows[::-1], records=Recorded.ORDER),
    mutation(
        "row.reversed-in-transaction",
        "reverses the changes of each transaction",
        rows_of.reversed_within,
        records=Recorded.ORDER,
    ),
    mutation(
        "row.transactions-reversed",
        "reverses the order of transactions",
        rows_of.transactions_reversed,
        records=Recorded.ORDER,
    ),
    mutation(
        "row.sorted-by-table", "orders the changes of a transaction by table", rows_of.by_table, records=Recorded.ORDER
    ),
    mutation(
        "row.sorted-by-operation",
        "orders the changes of a transaction by operation",
        rows_of.by_operation,
        records=Recorded.ORDER,
    ),
    mutation("row.sorted-by-key", "orders changes by the key of their rows", rows_of.by_key, records=Recorded.ORDER),
    Mutation(
        name="row.last-delayed",
        column="row",
        what="shows the last change later than its commit",
        apply=lambda rows, reads: rows if reads else rows[:-1],
    ),
    Mutation(
        name="row.all-delayed",
        column="row",
        what="shows changes later than their commit",
        apply=lambda rows, reads: rows if reads else [],
    ),
    Mutation(
        name="row.first-lost-later",
        column="row",
        what="loses its first change after a while",
        apply=lambda rows, reads: rows[1:] if reads else rows,
    ),
)

IDS = (
    mutation("id.equal-for-all", "gives every change the same id", lambda rows: column(rows, "id", lambda _row: "1")),
    mutation(
        "id.reused",
        "gives a change the id of the change before it",
        lambda rows: columns.of_rows_before(rows, "id")[:1] + columns.of_rows_before(rows, "id")[1:2] + rows[2:],
    ),
    Mutation(
        name="id.new-in-each-read",
        column="id",
        what="numbers its changes anew for each reader",
        apply=lambda rows, reads: [{**row, "id": f"{reads}-{number}"} for number, row in enumerate(rows)],
    ),
    mutation(
        "id.prefixed",
        "spells ids in another way",
        lambda rows: column(rows, "id", lambda row: f"c-{row['id']}"),
        sound=_OPAQUE,
    ),
)

TRANSACTIONS = (
    *(
        mutation(f"transaction_id.{name}", what, apply, records=Recorded.TRANSACTION_ID)
        for name, what, apply in (
            ("null", "records no transaction", lambda rows: with_transaction(rows, lambda _row: None)),
            (
                "equal-for-all",
                "gives all transactions the same id",
                lambda rows: with_transaction(rows, lambda _row: _transaction(rows[0])),
            ),
            (
                "emptied",
                "records an empty id for every transaction",
                lambda rows: with_transaction(rows, lambda _row: ""),
            ),
            (
                "own-for-each-row",
                "gives every change a transaction of its own",
                lambda rows: with_transaction(rows, lambda row: f"t-{row.get('id')}"),
            ),
            (
                "own-for-each-table",
                "gives the changes of each table a transaction of their own",
                lambda rows: with_transaction(rows, lambda row: f"{_transaction(row)} {row.get('table_name')}"),
            ),
            (
                "own-for-each-operation",
                "gives the changes of each operation a transaction of their own",
                lambda rows: with_transaction(rows, lambda row: f"{_transaction(row)} {row.get('op')}"),
            ),
            (
                "of-the-actor",
                "gives all transactions of an actor the same id",
                lambda rows: with_transaction(rows, lambda row: known(row.get("actor"))),
            ),
            ("pairs-merged", "merges a transaction with the one before it", rows_of.pairs_merged),
            ("reused", "gives a later transaction the id of an earlier one", rows_of.first_reused),
            (
                "first-row-attached-to-another",
                "attaches the first change of a transaction to the one before it",
                lambda rows: rows_of.edge_attached(rows, last=False),
            ),
            (
                "last-row-attached-to-another",
                "attaches the last change of a transaction to the one after it",
                lambda rows: rows_of.edge_attached(rows, last=True),
            ),
            (
                "null-for-updates",
                "records no transaction of updates",
                lambda rows: column(rows, "transaction_id", lambda _row: None, _of_op("update")),
            ),
            (
                "null-for-deletes",
                "records no transaction of deletes",
                lambda rows: column(rows, "transaction_id", lambda _row: None, _of_op("delete")),
            ),
            (
                "of-the-row-before",
                "records the transaction of the change before",
                lambda rows: columns.of_rows_before(rows, "transaction_id"),
            ),
            (
                "one-digit",
                "cuts the ids of transactions to their last character",
                lambda rows: with_transaction(rows, lambda row: str(_transaction(row))[-1:]),
            ),
        )
    ),
    mutation(
        "transaction_id.prefixed",
        "spells ids of transactions in another way",
        lambda rows: with_transaction(rows, lambda row: f"t-{_transaction(row)}"),
        sound=_OPAQUE,
    ),
)


MUTATIONS = (*ROWS, *IDS, *TRANSACTIONS)
