"""What follows from effective settings: pool sizes, tracked parameters, and typed conditions over them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from harness.checks.conditions import PREDICATES, SETTINGS, Facts, Kind, all_hold, read_conditions
from harness.checks.documented import WORKS, BehaviourEntry, Documented, compare, read_outcome
from harness.checks.registry import SEVERAL_SERVER_CONNECTIONS, lacking
from harness.errors import ConfigError
from harness.lab.effective import (
    UNLIMITED,
    as_it_runs,
    declared_limits,
    flag,
    least_connections,
    limits_all_databases,
    most_clients,
    names_of,
    pool_limits,
    released,
    tracked,
)
from harness.lab.recognised import declared_facts
from harness.lab.reset_query import STATES
from harness.lab.topologies import load_topologies
from harness.model import Outcome, PoolMode, Prepare, TopologyEvidence
from tests.tables import each_row
from tests.unit.made_up import stood

names = st.text("abcdefgh_", min_size=1, max_size=8)


def facts(**settings: str) -> Facts:
    return Facts(product="pgbouncer", mode=PoolMode.SESSION, version="1.24.1", settings=settings)


# --- pool sizes -------------------------------------------------------------------------------------------------


@each_row(
    ("settings", "size", "largest"),
    [
        ({"default_pool_size": "8"}, 8, 8),
        ({"default_pool_size": "8", "max_db_connections": "3"}, 3, 3),
        ({"default_pool_size": "8", "max_user_connections": "5", "max_db_connections": "6"}, 5, 5),
        ({"default_pool_size": "8", "max_db_connections": "0", "max_user_connections": "0"}, 8, 8),
        # the limits of one database or role replace the general ones
        ({"default_pool_size": "8", "database.pool_size": "3"}, 3, 3),
        ({"default_pool_size": "8", "database.pool_size": "3", "user.pool_size": "4"}, 4, 4),
        ({"default_pool_size": "8", "max_db_connections": "3", "database.max_connections": "6"}, 6, 6),
        ({"default_pool_size": "8", "max_user_connections": "3", "user.max_user_connections": "0"}, 8, 8),
        # the reserve comes later, within the other limits
        ({"default_pool_size": "2", "reserve_pool_size": "2"}, 2, 4),
        ({"default_pool_size": "2", "reserve_pool_size": "2", "max_db_connections": "3"}, 2, 3),
        ({"default_pool_size": "2", "reserve_pool_size": "2", "reserve_pool_timeout": "0"}, 2, 2),
        ({"default_pool_size": "2", "reserve_pool_size": "2", "database.reserve_pool_size": "0"}, 2, 2),
        ({"default_pool_size": "0"}, UNLIMITED, UNLIMITED),
        ({"default_pool_size": "0", "max_db_connections": "7"}, 7, 7),
    ],
)
def test_the_effective_size_is_the_lowest_limit(settings: dict[str, str], size: int, largest: int) -> None:
    found = pool_limits(settings)
    assert (found.size, found.largest) == (size, largest)


@given(
    st.dictionaries(
        st.sampled_from(
            ["default_pool_size", "max_db_connections", "max_user_connections", "reserve_pool_size", "user.pool_size"]
        ),
        st.integers(0, 50).map(str),
    )
)
def test_no_limit_is_exceeded(settings: dict[str, str]) -> None:
    found = pool_limits(settings)
    assert found.size <= found.largest
    for name in ("max_db_connections", "max_user_connections"):
        if limit := int(settings.get(name, "0")):
            assert found.largest <= limit


def pooled(**settings: str) -> TopologyEvidence:
    """Return the evidence of `transaction` with other effective settings of its pooler."""
    evidence = stood("transaction")
    server, pooler = evidence.services
    return replace(evidence, services=(server, replace(pooler, settings=pooler.settings | settings)))


@pytest.mark.parametrize(
    ("settings", "most"),
    [
        ({}, None),
        ({"max_client_conn": "200"}, 200),
        ({"max_client_conn": "200", "max_db_client_connections": "10", "max_user_client_connections": "0"}, 10),
        ({"max_db_client_connections": "10", "database.max_client_connections": "40"}, 40),
        ({"max_client_conn": "200", "user.max_user_client_connections": "7"}, 7),
    ],
)
def test_the_lowest_limit_of_clients_counts(settings: dict[str, str], most: int | None) -> None:
    assert most_clients(pooled(**settings)) == most
    assert most_clients(stood("direct")) is None


def test_a_topology_runs_with_its_effective_pool_size_and_prepare_policy() -> None:
    evidence = pooled(default_pool_size="8", max_db_connections="3", min_pool_size="6")
    running = as_it_runs(evidence.declared, replace(evidence, prepare=Prepare.UNNAMED))
    assert running.pooler
    assert (running.pooler.default_pool_size, running.client.prepare) == (3, Prepare.UNNAMED)
    assert least_connections(evidence) == 3
    direct = stood("direct")
    assert as_it_runs(direct.declared, direct).pooler is None
    assert least_connections(direct) == 0


@pytest.mark.parametrize(
    ("settings", "size", "statements"),
    [
        ({}, "4", "tracked"),
        ({"max_db_connections": "3"}, "3", "tracked"),
        # the size depends on how long clients wait, or cannot be seen from outside
        ({"reserve_pool_size": "2"}, None, "tracked"),
        ({"server_lifetime": "0"}, None, "tracked"),
        ({"max_prepared_statements": "0"}, "4", "untracked"),
    ],
)
def test_only_effective_values_are_declared_to_recognition(
    settings: dict[str, str], size: str | None, statements: str
) -> None:
    """The client's habit of preparing statements claims nothing about the pooler."""
    evidence = pooled(**settings)
    for prepare in Prepare:
        running = as_it_runs(evidence.declared, replace(evidence, prepare=prepare))
        facts_declared = declared_facts(running, evidence)
        assert (facts_declared.get("pool_size"), facts_declared["prepared_statements"]) == (size, statements)
    pgpool = stood("pgpool")
    assert "prepared_statements" not in declared_facts(pgpool.declared, pgpool)


def test_a_limit_of_a_role_is_shared_by_all_databases() -> None:
    topology = load_topologies()["transaction"]
    assert topology.pooler
    assert not limits_all_databases(topology)
    assert not limits_all_databases(load_topologies()["direct"])
    for values in ({"settings": {"max_user_connections": "3"}}, {"user": {"max_user_connections": "3"}}):
        assert limits_all_databases(replace(topology, pooler=replace(topology.pooler, **values)))


# --- tracked parameters, and what a release resets ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "extra", "reported", "expected"),
    [
        ("1.18.0", "search_path", ("search_path",), set()),
        ("1.24.1", "IntervalStyle", ("intervalstyle", "search_path"), {"intervalstyle"}),
        ("1.24.1", " Search_Path , work_mem", ("intervalstyle", "search_path"), {"search_path"}),
        ("1.26.1", "", ("intervalstyle", "search_path", "is_superuser"), {"intervalstyle", "search_path"}),
        ("1.26.1", "app.tenant", ("app.tenant",), {"app.tenant"}),
        ("unknown", "", ("search_path",), {"search_path"}),
    ],
)
def test_only_what_the_server_reports_is_tracked(
    version: str, extra: str, reported: tuple[str, ...], expected: set[str]
) -> None:
    settings = {"track_extra_parameters": extra}
    always = tracked("pgbouncer", "1.18.0", {}, ())
    assert tracked("pgbouncer", version, settings, reported) == always | expected
    assert tracked("pgagroal", version, settings, reported) == frozenset()


@pytest.mark.parametrize("mode", [PoolMode.TRANSACTION, PoolMode.STATEMENT])
def test_the_reset_query_runs_at_the_end_of_a_session_or_always(mode: PoolMode) -> None:
    query = {"server_reset_query": "RESET ALL"}
    assert released("pgbouncer", PoolMode.SESSION, query).resets("settings") is True
    assert released("pgbouncer", mode, query).resets("settings") is False
    assert released("pgbouncer", mode, query | {"server_reset_query_always": "1"}).resets("settings") is True
    assert released("pgbouncer", mode, query | {"server_reset_query_always": "?"}).resets("settings") is None
    assert released("pgbouncer", mode, query | {"server_lifetime": "0"}).closes


# --- lists and flags -------------------------------------------------------------------------------------------


@given(st.lists(names), st.randoms())
def test_a_list_of_names_has_no_order_case_blanks_or_repetition(chosen: list[str], random: Any) -> None:
    shuffled = [name.upper() if random.random() < 0.5 else f"  {name} " for name in [*chosen, *chosen]]
    random.shuffle(shuffled)
    assert names_of(",".join(shuffled)) == frozenset(chosen)


@given(st.lists(names), names)
def test_a_name_is_in_a_list_only_as_a_whole(chosen: list[str], name: str) -> None:
    chain = facts(ignore_startup_parameters=", ".join(chosen))
    has = read_conditions({"ignore_startup_parameters": {"has": name}})
    lacks = read_conditions({"ignore_startup_parameters": {"lacks": [name]}})
    assert all_hold(has, chain) is (name in chosen)
    assert all_hold(lacks, chain) is (name not in chosen)


@given(st.integers(0, 9), st.integers(0, 9))
def test_numbers_are_compared(value: int, operand: int) -> None:
    chain = facts(instances=str(value))
    for predicate, expected in (("is", value == operand), ("at_least", value >= operand), ("below", value < operand)):
        assert all_hold(read_conditions({"instances": {predicate: operand}}), chain) is expected


def test_a_flag_is_on_or_off() -> None:
    assert [flag(text) for text in ("1", "ON", "true", " yes ")] == [True] * 4
    assert [flag(text) for text in ("0", "off", "False", "no")] == [False] * 4
    assert flag("perhaps") is None


@given(st.sampled_from(sorted(SETTINGS)), st.text(max_size=20))
def test_a_condition_on_any_text_holds_or_not_or_is_unknown(setting: str, text: str) -> None:
    operands: dict[Kind, Any] = {
        Kind.FLAG: True,
        Kind.NUMBER: 1,
        Kind.NAMES: "x",
        Kind.SPELLED_NAMES: "x",
        Kind.RELEASE: sorted(STATES),
    }
    for predicate in PREDICATES[SETTINGS[setting]]:
        conditions = read_conditions({setting: {predicate: operands[SETTINGS[setting]]}})
        assert all_hold(conditions, facts(**{setting: text})) in {True, False, None}
        assert all_hold(conditions, facts()) in {True, False, None}


def test_a_setting_that_cannot_be_read_makes_its_condition_unknown_and_another_can_still_rule_it_out() -> None:
    unknown = {"max_prepared_statements": {"is": 0}}
    assert all_hold(read_conditions(unknown), facts()) is None
    assert all_hold(read_conditions(unknown), facts(max_prepared_statements="many")) is None
    ruled_out = unknown | {"instances": {"at_least": 2}}
    assert all_hold(read_conditions(ruled_out), facts(instances="1")) is False


@given(
    st.dictionaries(st.text(max_size=10), st.one_of(st.booleans(), st.text(), st.dictionaries(st.text(), st.none())))
)
def test_any_other_table_is_an_error_for_the_user(when: dict[str, Any]) -> None:
    try:
        read_conditions(when)
    except ConfigError as error:
        assert error.what


# --- the comparison ---------------------------------------------------------------------------------------------


def entry(outcome: str, *, defect: bool = False) -> BehaviourEntry:
    return BehaviourEntry(features=("x",), outcome=outcome, source="https://example.org/" + outcome[:4], defect=defect)


LIMIT, DEFECT = entry("leaks"), entry("wrong", defect=True)


@pytest.mark.parametrize(
    ("observed", "found", "right", "held", "better", "defect"),
    [
        ("leaks", LIMIT, LIMIT, True, False, False),
        ("works", LIMIT, LIMIT, True, True, False),
        ("lost", LIMIT, LIMIT, False, False, False),
        ("wrong", DEFECT, None, False, False, True),
        ("works", DEFECT, None, True, False, False),
        ("works", DEFECT, LIMIT, True, True, False),
        ("leaks", None, None, False, False, False),
    ],
)
def test_a_feature_that_works_is_never_worse_than_documented(
    observed: str,
    found: BehaviourEntry | None,
    right: BehaviourEntry | None,
    held: bool,
    better: bool,
    defect: bool,
) -> None:
    outcome = read_outcome(observed)
    compared = compare(outcome, Documented(entry=found), Documented(entry=right))
    assert (compared.better or outcome in compared.expected) is held
    assert (compared.better, compared.defect) == (better, defect)
    strict = compare(outcome, Documented(entry=found), Documented(entry=right), strictly=True)
    assert not strict.better
    if better:
        assert compared.source == "https://example.org/leak"


@given(st.lists(st.sampled_from(["works", "lost", "leaks", "wrong", "hangs", "fails (26000)"]), min_size=1))
def test_works_is_always_accepted_and_nothing_undocumented_is(documented_as: list[str]) -> None:
    found = Documented(entry=BehaviourEntry(features=("x",), outcome=tuple(documented_as), source="https://e.org"))
    for text in ("works", "lost", "leaks", "wrong", "hangs", "fails (26000)", "fails (08P01, closed)"):
        outcome: Outcome = read_outcome(text)
        compared = compare(outcome, found, found)
        accepted = compared.better or outcome in compared.expected
        assert accepted is (text in documented_as or outcome == WORKS)


def test_an_entry_that_may_apply_permits_its_outcome() -> None:
    found = Documented(possible=(LIMIT,))
    assert compare(read_outcome("leaks"), found, found).expected == (WORKS, read_outcome("leaks"))
    assert compare(read_outcome("leaks"), found, found).source == "https://example.org/leak"


@pytest.mark.parametrize(
    ("pooler", "size"),
    [
        ({}, 8),
        ({"settings": {"max_db_connections": "1"}}, 1),
        ({"settings": {"max_user_connections": "2", "reserve_pool_size": "9"}}, 2),
        ({"database": {"pool_size": "3"}}, 3),
        ({"database": {"max_db_connections": "2"}, "settings": {"max_db_connections": "5"}}, 2),
        ({"user": {"max_user_connections": "1"}}, 1),
    ],
)
def test_declared_limits_are_the_lowest_of_pool_database_and_role(pooler: dict[str, Any], size: int) -> None:
    shipped = stood("transaction").declared
    assert shipped.pooler
    topology = replace(shipped, pooler=replace(shipped.pooler, default_pool_size=8, **pooler))
    limits = declared_limits(topology)
    assert limits
    assert limits.size == size
    assert (lacking((SEVERAL_SERVER_CONNECTIONS,), topology) is None) is (size > 1)


def test_a_topology_without_a_pooler_has_no_declared_limits() -> None:
    assert declared_limits(stood("direct").declared) is None
