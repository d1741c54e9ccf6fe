"""Placeholders in the statements of audit targets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.audit.placeholders import (
    LONGEST_NAME,
    Name,
    cut_name,
    fill,
    role_names,
    split_identifier,
    table_names,
    unknown_placeholder,
    unquoted,
    uses,
)
from harness.database import quote_identifier, quote_literal
from tests.tables import each_row

#: what PostgreSQL stores as a name: any characters but NUL, in at most 63 bytes
NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=30).map(
    cut_name
)
PARTS = st.text("abcXYZ019_$", max_size=40)
TEXTS = st.text("abc {}'\"-$;\n%+", max_size=40)


@each_row(
    ("statement", "filled"),
    [
        ("{table} {schema} {name}", 'public."Order ""1""" public "Order ""1"""'),
        ("{name_literal} {schema_literal}", "'Order \"1\"' 'public'"),
        ("{table_literal}::regclass", '\'public."Order ""1"""\'::regclass'),
        ("{log_+name}", '"log_Order ""1"""'),
        ("{name+_history}", '"Order ""1""_history"'),
        ("{a+name+b}", '"aOrder ""1""b"'),
        ("{+name}{name+}", '"Order ""1""""Order ""1"""'),
        ("{role} {owner_literal}", "app 'The owner'"),
        ("{owner}", '"The owner"'),
        # braces that hold no placeholder
        ("'{}' '{1,2}' {\"name\": 1} {table+x} {name+schema} {a+b} {name}}", None),
    ],
)
def test_placeholders_become_identifiers_and_literals(statement: str, filled: str | None) -> None:
    names = table_names('public."Order ""1"""') | role_names("app", "The owner")
    expected = statement.replace("{name}}", '"Order ""1"""}') if filled is None else filled
    assert fill(statement, names) == expected


@given(schema=NAMES, name=NAMES)
def test_a_quoted_identifier_keeps_its_parts(schema: str, name: str) -> None:
    quoted = f"{quote_identifier(schema)}.{quote_identifier(name)}"
    assert [unquoted(part) for part in split_identifier(quoted)] == [schema, name]
    assert fill("{table}", table_names(quoted)) == quoted
    assert fill("{schema}.{name}", table_names(quoted)) == quoted
    assert fill("{schema_literal}{name_literal}", table_names(quoted)) == quote_literal(schema) + quote_literal(name)


@given(before=PARTS, name=NAMES, after=PARTS)
def test_a_joined_name_is_one_identifier_of_63_bytes_at_most(before: str, name: str, after: str) -> None:
    filled = fill(f"{{{before}+name+{after}}}", {"name": Name(name)})
    stored = unquoted(filled)
    assert split_identifier(filled) == [filled]
    assert len(stored.encode()) <= LONGEST_NAME
    assert f"{before}{name}{after}".startswith(stored)
    assert len(stored.encode()) > LONGEST_NAME - 4 or stored == f"{before}{name}{after}"


@given(before=TEXTS, after=TEXTS, name=NAMES)
def test_the_value_of_a_placeholder_is_never_filled_again(before: str, after: str, name: str) -> None:
    names = {"name": Name(f"{name}{{name}}")}
    filled = fill(f"{before}|{{name}}|{after}", names)
    assert filled == f"{fill(before, names)}|{names['name'].identifier}|{fill(after, names)}"


@given(statement=TEXTS)
def test_a_statement_without_placeholders_is_unchanged(statement: str) -> None:
    assert fill(statement, table_names("public.posts")) == statement


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("GRANT SELECT ON t TO {role}", None),
        ("GRANT SELECT ON t TO {rol}", ("unknown placeholder {rol}", "did you mean role?")),
        ("ON {name}", ("unknown placeholder {name}", "known here: {role}, {owner}, {role_literal}")),
        ("SELECT '{rol}', \"{rol}\", $$ {rol} $$ -- {rol}\n/* {rol} */", None),
        ("SELECT '{}'::text[], '{\"a\": 1}'", None),
    ],
)
def test_an_unknown_placeholder_is_found_outside_of_quotes(statement: str, found: tuple[str, str] | None) -> None:
    problem = unknown_placeholder(statement, ("role", "owner"))
    assert problem == found if found is None else problem is not None
    if found and problem:
        assert problem[0] == found[0]
        assert problem[1].startswith(found[1])


def test_a_statement_about_a_table_is_recognised() -> None:
    assert uses("GRANT SELECT ON {schema}.{name+_history} TO x", ("name",))
    assert not uses("GRANT SELECT ON log TO {role}, '{}'", ("table", "schema", "name"))
