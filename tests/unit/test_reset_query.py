"""What a reset query resets: judged by its statements, in any spelling."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.lab.reset_query import (
    AUTHORIZATION,
    CURSORS,
    LOCKS,
    NOTIFICATIONS,
    PREPARED,
    ROLE,
    SEQUENCES,
    SETTINGS,
    STATES,
    TEMPORARY,
    Reset,
    read_reset_query,
)

#: statements, and the states that each resets
EFFECTS = {
    "DISCARD ALL": STATES,
    "DISCARD PLANS": frozenset[str](),
    "DISCARD TEMP": {TEMPORARY},
    "DISCARD TEMPORARY": {TEMPORARY},
    "DISCARD SEQUENCES": {SEQUENCES},
    "DEALLOCATE ALL": {PREPARED},
    "DEALLOCATE PREPARE ALL": {PREPARED},
    "RESET ALL": {SETTINGS},
    "RESET ROLE": {ROLE},
    "SET ROLE NONE": {ROLE},
    "RESET SESSION AUTHORIZATION": {ROLE, AUTHORIZATION},
    "SET SESSION AUTHORIZATION DEFAULT": {ROLE, AUTHORIZATION},
    "UNLISTEN *": {NOTIFICATIONS},
    "CLOSE ALL": {CURSORS},
    "SELECT pg_advisory_unlock_all()": {LOCKS},
    "SELECT pg_catalog.pg_advisory_unlock_all()": {LOCKS},
    "": frozenset[str](),
}
statements = st.sampled_from(list(EFFECTS))
blanks = st.sampled_from(
    [" ", "\n", "\t  ", " /* a comment; with ' and /* another */ */ ", " -- to the end; 'of the line\n"]
)


@st.composite
def spelled(draw: st.DrawFn, statement: str) -> str:
    """Return a statement with other blanks, comments and case."""
    words = [draw(st.sampled_from([str.upper, str.lower, str.title]))(word) for word in statement.split(" ")]
    return draw(blanks) + "".join(word + draw(blanks) for word in words)


@given(st.data(), st.lists(statements, max_size=6))
def test_a_query_resets_what_any_of_its_statements_resets(data: st.DataObject, chosen: list[str]) -> None:
    query = ";".join(data.draw(spelled(statement)) for statement in chosen)
    found = read_reset_query(query)
    assert found == Reset(states=frozenset().union(*(EFFECTS[statement] for statement in chosen)))
    for state in STATES:
        assert found.resets(state) is (state in found.states)


@given(st.lists(statements, max_size=3), st.lists(statements, max_size=3))
def test_a_statement_that_is_not_understood_hides_only_what_the_others_do_not_reset(
    before: list[str], after: list[str]
) -> None:
    query = ";".join([*before, "SELECT app.clean_up('DISCARD ALL')", *after])
    found = read_reset_query(query)
    known = frozenset().union(*(EFFECTS[statement] for statement in (*before, *after)))
    assert not found.understood
    for state in STATES:
        assert found.resets(state) is (True if state in known else None)


@given(st.text(max_size=200))
def test_any_text_has_an_effect_or_an_unknown_one(query: str) -> None:
    found = read_reset_query(query)
    assert all(found.resets(state) in {True, False, None} for state in STATES)
    assert found.understood or None in {found.resets(state) for state in STATES} or found.states == STATES


@pytest.mark.parametrize(
    "query",
    ["RESET search_path", "reset SEARCH_PATH;", "SET search_path TO DEFAULT", "SET SESSION search_path=default"],
)
def test_a_single_setting_is_reset(query: str) -> None:
    found = read_reset_query(query)
    assert found.resets("search_path") is True
    assert found.resets("work_mem") is found.resets(SETTINGS) is False


@pytest.mark.parametrize(
    "query",
    [
        "SET search_path = ''",
        "SELECT 'DISCARD ALL'",
        "DEALLOCATE one",
        "DO $$ BEGIN PERFORM 1; END $$",
        'RESET "search_path"',
        "DISCARD ALL_OF_IT",
        "SELECT 1, pg_advisory_unlock_all()",
    ],
)
def test_other_statements_are_not_understood(query: str) -> None:
    assert not read_reset_query(query).understood


def test_reset_all_covers_every_setting_but_not_the_role() -> None:
    found = read_reset_query("RESET ALL")
    assert found.resets("app.tenant") is True
    assert found.resets(ROLE) is found.resets(AUTHORIZATION) is False


def test_a_closed_server_connection_keeps_nothing() -> None:
    assert Reset(closes=True).resets(ROLE) is True
