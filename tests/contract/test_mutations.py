"""Mutations of the rows that checks read, tried in a real topology for a trail other than the reference layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.checks import row_runner
from harness.model import MutationState, Status
from harness.mutants.observed import MUTATIONS
from harness.store import read_run
from harness.suites.actor import sharing
from harness.suites.capture import writes
from tests.contract.command_line import harness_here

if TYPE_CHECKING:
    from pathlib import Path

    from harness.engine.protocol import Engine

pytestmark = pytest.mark.engine

#: mutations that the checks of a trail noticed from the beginning
NOTICED = {
    *("row.all-dropped", "row.last-dropped", "row.all-doubled", "row.reversed", "row.last-delayed"),
    *(
        "transaction_id.equal-for-all",
        "transaction_id.own-for-each-row",
        "table_name.upper-cased",
        "op.delete-as-update",
    ),
    *("data_after.texts-lower-cased", "data_after.before-update", "changed_fields.all", "actor.null"),
    *("actor.of-the-transaction-before", "actor.kept-for-nobody", "id.reused"),
}
#: mutations of what this trail does not record
LEFT_OUT = {"op.upper-cased", "changed_from.null"}
#: `prove` tries all of them with the reference layer; here, those whose outcome is known, and every tenth of the others
TRIED = tuple(
    mutation for place, mutation in enumerate(MUTATIONS) if mutation.name in NOTICED | LEFT_OUT or place % 10 == 0
)


def test_each_mutation_has_an_outcome_and_the_basic_ones_are_noticed(
    some_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_runner, "MUTATIONS", TRIED)
    # no mutation here depends on the number of rows or rounds: `prove` reads thousands
    monkeypatch.setattr(writes, "_MANY", 50)
    monkeypatch.setattr(sharing, "_ROUNDS", 10)
    done = harness_here(
        tmp_path, "prove", "transaction", "--audit-target", "plain-trigger", "--engine", some_engine.name
    )
    run = read_run(tmp_path / "reports" / "runs" / "latest")
    states = {proof.name: proof.state for proof in run.observed_proofs}
    assert states.keys() == {mutation.name for mutation in TRIED}, done.stderr
    assert {name: states[name] for name in NOTICED} == dict.fromkeys(NOTICED, MutationState.NOTICED)
    assert {name: states[name] for name in LEFT_OUT} == dict.fromkeys(LEFT_OUT, MutationState.LEFT_OUT)
    sound = {(result.target, result.check) for result in run.answers() if result.status is Status.OK}
    assert {(proof.topology, proof.check) for proof in run.observed_proofs if proof.check} <= sound
    assert not run.proofs
    assert not run.trail_proofs
    noticed = sum(state is MutationState.NOTICED for state in states.values())
    assert f"transaction  mutated rows: noticed={noticed} " in done.stdout
    for name, state in states.items():
        assert (f"SURVIVED transaction: {name}: a trail that " in done.stdout) is (state is MutationState.SURVIVED)
