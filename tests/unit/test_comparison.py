from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.model import EvidenceClass
from harness.report.comparison import FIELDS, Comparison, compare

POOLED = {
    "chain": "application to PgBouncer to PostgreSQL",
    "product": "PgBouncer",
    "version": "1.24.1",
    "pool_mode": "transaction",
    "pool_size": "20",
    "prepared_statements": "tracked",
    "prepare": "unnamed",
    "server_version": "17.5",
    "session_replication_role": "origin",
    "synchronous_commit": "on",
    "default_transaction_isolation": "read committed",
}
SERVER = {
    name: POOLED[name]
    for name in ("server_version", "session_replication_role", "synchronous_commit", "default_transaction_isolation")
}
DIRECT = {"chain": "direct", **SERVER}


def _host(here: dict[str, str], production: dict[str, str]) -> Comparison:
    return compare(here, production, evidence_class=EvidenceClass.HOST)


def _verdict(field: str, here: str, there: str) -> str:
    found = _host(POOLED | {field: here}, POOLED | {field: there})
    return next(each.verdict for each in found.fields if each.field == field)


def test_all_that_is_declared_and_needed_the_same_is_yes_by_whose_declaration() -> None:
    found = _host(POOLED, POOLED)
    assert found.matches == "yes"
    assert found.paragraph == (
        "By the declaration of those who run production, staging is the same as production in chain, product, "
        "pool_mode, prepared_statements, prepare, pool_size, version, server_version, session_replication_role, "
        "synchronous_commit and default_transaction_isolation."
    )


def test_who_declared_production_is_named() -> None:
    found = compare(POOLED, POOLED, evidence_class=EvidenceClass.HOST, declared_by="ada, docs/production.md")
    assert found.paragraph.startswith(
        "By the declaration of ada, docs/production.md, staging is the same as production"
    )


def test_without_a_pooler_nothing_is_asked_of_one() -> None:
    assert _host(DIRECT, DIRECT).matches == "yes"
    assert _host({"pooler": "no", **SERVER}, {"pooler": "no", **SERVER}).matches == "yes"


@pytest.mark.parametrize("name", ["version", "prepare", "pool_size", "session_replication_role"])
def test_what_production_leaves_out_keeps_it_from_matching(name: str) -> None:
    production = {field: value for field, value in POOLED.items() if field != name}
    assert _host(POOLED, production).matches == "partial"


def test_ci_class_is_partial_at_best() -> None:
    found = compare(POOLED, POOLED, evidence_class=EvidenceClass.CI)
    assert found.matches == "partial"
    assert "the harness stood staging up itself" in found.paragraph
    assert compare(POOLED, DIRECT, evidence_class=EvidenceClass.CI).matches == "no"


@pytest.mark.parametrize("field", ["chain", "product", "pool_mode"])
def test_another_chain_product_or_mode_is_no(field: str) -> None:
    found = _host(POOLED, POOLED | {field: "something else"})
    assert found.matches == "no"
    assert f"{field} is {POOLED[field]} in staging and something else in production: " in found.paragraph
    assert found.paragraph.endswith("is no evidence of how production treats an audited write.")


def test_another_size_is_partial_and_told_with_both_values() -> None:
    found = compare(
        POOLED, POOLED | {"pool_size": "4"}, evidence_class=EvidenceClass.HOST, names=("integration", "live")
    )
    assert found.matches == "partial"
    assert "pool_size is 20 in integration and 4 in live: clients share" in found.paragraph
    assert "The same in both: chain (application to PgBouncer to PostgreSQL), product (PgBouncer)" in found.paragraph


@pytest.mark.parametrize(
    "field", ["chain", "product", "pool_mode", "pool_size", "prepared_statements", "server_version"]
)
def test_what_a_match_needs_must_be_known_in_both(field: str) -> None:
    less = {key: value for key, value in POOLED.items() if key != field}
    for here, there in ((less, POOLED), (POOLED, less), (less, less), (POOLED | {field: "unknown"}, POOLED)):
        found = _host(here, there)
        assert found.matches == "partial"
        assert "The evidence says nothing about what hangs on the unknown." in found.paragraph


def test_what_is_declared_of_production_and_not_known_here_is_unknown() -> None:
    found = _host(POOLED, POOLED | {"server_reset_query": "DISCARD ALL"})
    assert found.matches == "partial"
    assert found.fields[-1].field == "server_reset_query"
    assert "server_reset_query, where that of staging is not known and production has DISCARD ALL" in found.paragraph


def test_what_only_staging_knows_is_told_and_keeps_nothing_from_matching() -> None:
    found = _host(POOLED | {"statement_timeout": "30s", "tls_client": "used"}, POOLED)
    assert found.matches == "yes"
    assert found.undeclared == ("statement_timeout",)


@pytest.mark.parametrize(
    ("field", "here", "there", "verdict"),
    [
        ("version", "1.24.1", "1.24.1", "same"),
        ("version", "1.24.1", ">= 1.23", "unknown"),
        ("version", "1.18.0", ">= 1.23", "differs"),
        ("version", ">= 1.20, < 1.23", "1.24", "differs"),
        ("version", ">= 1.20, < 1.25", "1.24", "unknown"),
        ("version", ">= 1.23", ">= 1.23", "unknown"),
        ("version", "1.24", "1.24.1", "unknown"),
        ("version", "1.24.x", "1.24.1", "unknown"),
        ("version", "1.2", "1.24.1", "differs"),
        ("server_version", "17.5 (Debian 17.5-1.pgdg120+1)", "17.5", "same"),
        ("server_version", "17.5", "15.13", "differs"),
        ("pool_size", "at least 12", "20", "unknown"),
        ("pool_size", "at least 12", "4", "differs"),
        ("pool_size", "12", "9" * 5000, "differs"),
        ("product", "pgbouncer", "PgBouncer", "same"),
        ("product", "unknown pooler", "PgBouncer", "unknown"),
        ("statement_timeout", "30s", "30000", "same"),
        ("statement_timeout", "0", "30s", "differs"),
        ("default_transaction_isolation", "read committed", "read  committed", "same"),
        ("session_replication_role", "replica", "origin", "differs"),
    ],
)
def test_values_are_the_same_only_where_they_are_exact_and_equal(
    field: str, here: str, there: str, verdict: str
) -> None:
    assert _verdict(field, here, there) == verdict
    assert _verdict(field, there, here) == verdict


def test_an_admitting_bound_is_likely_compatible_in_words() -> None:
    found = _host(POOLED, POOLED | {"version": ">= 1.23"})
    assert found.matches == "partial"
    assert "likely compatible: >= 1.23 admits 1.24.1" in found.paragraph


def test_with_and_without_a_pooler_is_told_from_the_fact_where_a_chain_is_missing() -> None:
    found = _host(POOLED | {"pooler": "yes"}, {"pooler": "no", "server_version": "17.5"})
    assert found.matches == "no"
    assert "chain is with a pooler in staging and direct in production" in found.paragraph


def test_fields_come_gravest_first_and_always_in_one_order() -> None:
    backwards = dict(reversed(list((POOLED | {"zzz": "1", "aaa": "1"}).items())))
    names = [each.field for each in _host(POOLED, backwards).fields]
    assert names == [*(name for name in FIELDS if name in POOLED), "aaa", "zzz"]


def test_nothing_declared_is_partial() -> None:
    found = _host(POOLED, {})
    assert found.matches == "partial"
    assert {each.verdict for each in found.fields} == {"unknown"}


def test_values_from_outside_stay_on_one_line_of_the_paragraph() -> None:
    found = _host(POOLED, POOLED | {"pool_size": "4 |\r\n# <b>\u2028" + "x" * 500})
    assert len(found.paragraph.splitlines()) == 1
    assert len(found.paragraph) < 1500


_VALUES = st.sampled_from(
    ["", "unknown", "direct", "PgBouncer", "transaction", "20", "17.5", "17", ">= 17", "at least 3", "none", "a\n|b"]
) | st.text(max_size=12)
_SIDES = st.dictionaries(st.sampled_from([*FIELDS, "other"]), _VALUES)


@given(here=_SIDES, there=_SIDES, kind=st.sampled_from(EvidenceClass))
def test_yes_is_never_said_too_early(here: dict[str, str], there: dict[str, str], kind: EvidenceClass) -> None:
    found = compare(here, there, evidence_class=kind)
    verdicts = {each.verdict for each in found.fields}
    assert found.matches != "yes" or (kind is EvidenceClass.HOST and verdicts == {"same"})
    assert found.matches == "no" or not any(
        each.verdict == "differs" for each in found.fields if each.field in {"chain", "product", "pool_mode"}
    )
    assert {"chain", "server_version"} <= {each.field for each in found.fields}
    assert found.paragraph.endswith(".")


@given(here=_SIDES, there=_SIDES)
def test_same_is_symmetric(here: dict[str, str], there: dict[str, str]) -> None:
    def same(found: Comparison) -> set[str]:
        return {each.field for each in found.fields if each.verdict == "same"}

    assert same(_host(here, there)) == same(_host(there, here))


@given(side=_SIDES)
def test_an_environment_never_differs_from_itself(side: dict[str, str]) -> None:
    assert "differs" not in {each.verdict for each in _host(side, side).fields}
