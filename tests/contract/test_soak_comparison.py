"""The comparison of a load's acknowledgements with table and trail: what is wrong is found, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from harness.audit.target_file import Recorded
from harness.audit.target_loading import reference_target
from harness.checks.judges import soak
from harness.checks.workspace import Workspace
from harness.engine.owner import Owner
from harness.lab.lab import stand_up
from harness.lab.topologies import load_topologies
from harness.redaction import Redactor
from harness.store import new_run_id
from harness.suites.catalogue import FIXTURES
from harness.suites.soak.tables import compare_rows, prepare
from tests.bench.soak import FILL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.checks.context import CheckContext
    from harness.engine.protocol import Engine

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def written(some_engine: Engine) -> Iterator[CheckContext]:
    """Forty rows of sixteen clients, as a sound load leaves them."""
    lab = stand_up(some_engine, load_topologies()["direct"], Owner.me(new_run_id()), Redactor())
    try:
        workspace = Workspace(lab, reference_target(), FIXTURES)
        try:
            with workspace.context("soak.written") as ctx:
                prepare(ctx)
                ctx.admin.run(FILL.replace("{clients}", "16").replace("{rows}", "40"))
                yield ctx
        finally:
            workspace.close()
    finally:
        lab.close()


#: of the row 7, which client 7 wrote first
ROW = "public.soak_writes WHERE id = 7"
CHANGE = """public.audit_changes WHERE table_pk = '{"id": 7}'"""
COLUMNS = "transaction_id, table_schema, table_name, table_pk, op, data_after, captured_at"
IT = "client = 7 AND seq = 1"


@pytest.mark.parametrize(
    ("mutation", "finds"),
    [
        ("SELECT 1", ()),
        (f"DELETE FROM {CHANGE}", (soak.MISSING_CHANGES,)),
        (f"DELETE FROM {CHANGE}; DELETE FROM {ROW}", (soak.MISSING_ROWS, soak.MISSING_CHANGES)),
        (f"DELETE FROM {ROW}", (soak.MISSING_ROWS, soak.MISSING_CHANGES, soak.STRAYS)),
        (f"DELETE FROM soak.outcomes WHERE {IT}", (soak.STRAYS,)),
        (f"UPDATE soak.outcomes SET outcome = 'fail' WHERE {IT}", (soak.FAILED_ROWS,)),
        (f"UPDATE soak.outcomes SET outcome = 'unknown' WHERE {IT}", ()),
        (f"UPDATE soak.outcomes SET outcome = 'unknown' WHERE {IT}; DELETE FROM {CHANGE}; DELETE FROM {ROW}", ()),
        (f"UPDATE soak.outcomes SET outcome = 'unknown' WHERE {IT}; DELETE FROM {CHANGE}", (soak.DISAGREEING,)),
        (f"UPDATE soak.outcomes SET outcome = 'fail' WHERE {IT}; DELETE FROM {CHANGE}; DELETE FROM {ROW}", ()),
        (
            f"INSERT INTO public.audit_changes ({COLUMNS}) SELECT {COLUMNS} FROM {CHANGE}",
            (soak.REPEATED_CHANGES,),
        ),
        (
            f"INSERT INTO public.soak_writes SELECT 1000, client, seq, request, value FROM {ROW}",
            (soak.REPEATED_ROWS,),
        ),
        (
            """UPDATE public.audit_changes SET data_after = data_after || '{"value": null}' WHERE table_pk = '{"id": 7}'""",
            (soak.IMAGES,),
        ),
        ("UPDATE public.audit_changes SET op = 'update' WHERE table_pk = '{\"id\": 7}'", (soak.IMAGES,)),
        (
            f"""UPDATE public.audit_transactions SET actor_ref = '{{"type": "user", "id": "soak-8"}}' WHERE id = (SELECT transaction_id FROM {CHANGE})""",
            (soak.ACTORS,),
        ),
        (
            f"UPDATE public.audit_transactions SET actor_ref = NULL WHERE id = (SELECT transaction_id FROM {CHANGE})",
            (soak.ACTORS,),
        ),
        (
            """UPDATE public.audit_changes SET captured_at = captured_at + interval '1 day' WHERE table_pk = '{"id": 7}'""",
            (soak.ORDER,),
        ),
        (
            f"""UPDATE public.audit_changes SET transaction_id = (SELECT transaction_id FROM {CHANGE}) WHERE table_pk = '{{"id": 23}}'""",
            (soak.SHARED,),
        ),
    ],
)
def test_the_comparison_finds_what_is_wrong_and_nothing_else(
    written: CheckContext, mutation: str, finds: tuple[str, ...]
) -> None:
    with written.admin.transaction(force_rollback=True):
        written.admin.run("SET LOCAL session_replication_role = replica")
        written.admin.run(mutation)
        found, _ = compare_rows(written.admin, written.target)
    assert {name for name, one in found.items() if one.count} == set(finds)
    assert all(0 < len(one.first) <= one.count for one in found.values() if one.count)


def test_what_a_trail_does_not_record_by_design_is_not_compared(written: CheckContext) -> None:
    compared = []
    for omits in (frozenset[Recorded](), frozenset({Recorded.ACTOR, Recorded.ORDER, Recorded.TRANSACTION_ID})):
        with written.admin.transaction(force_rollback=True):
            compared.append(set(compare_rows(written.admin, replace(written.target, omits=omits))[0]))
    everything, found = compared
    assert everything == set(soak.FINDINGS) - {soak.IDLE}
    assert everything - found == {soak.ACTORS, soak.ORDER, soak.SHARED}
