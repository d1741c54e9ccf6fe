"""Environments compared with production: verdicts, bounds and sentences."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.model import EvidenceClass
from harness.report.comparison import FIELDS, Comparison, compare
from tests.tables import each_row

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
    return next(compared.verdict for compared in found.fields if compared.field == field)


def test_equality_of_everything_that_is_declared_and_needed_is_yes() -> None:
    found = _host(POOLED, POOLED)
    assert found.matches == "yes"
    assert found.paragraph == (
        "According to the operators of production, staging has the same chain, product, pool_mode, "
        "prepared_statements, prepare, pool_size, version, server_version, session_replication_role, "
        "synchronous_commit and default_transaction_isolation as production."
    )


def test_the_source_of_the_declaration_is_named() -> None:
    found = compare(POOLED, POOLED, evidence_class=EvidenceClass.HOST, declared_by="ada, docs/production.md")
    assert found.paragraph.startswith("According to ada, docs/production.md, staging has the same chain, ")


def test_without_a_pooler_its_fields_are_not_needed() -> None:
    assert _host(DIRECT, DIRECT).matches == "yes"
    assert _host({"pooler": "no", **SERVER}, {"pooler": "no", **SERVER}).matches == "yes"


@each_row(
    ("field", "value"),
    [
        *(("chain", value) for value in ("direct", "none", "no pooler", "Without Pooler", "without a  pooler")),
        ("pooler", "no"),
        *(("product", value) for value in ("none", "no pooler", "PostgreSQL")),
    ],
)
def test_every_spelling_of_no_pooler_is_understood(field: str, value: str) -> None:
    side = {"chain": "application to PostgreSQL"} | SERVER | {field: value}
    assert _host(side, side).matches == "yes"
    assert "pool_size" not in {compared.field for compared in _host(side, side).fields}


def test_a_pooler_on_one_side_only_needs_the_fields_of_a_pooler() -> None:
    pooled = {"chain": "application to PgBouncer to PostgreSQL", **SERVER}
    for here, production in ((pooled, DIRECT), (DIRECT, pooled)):
        assert "pool_size" in {compared.field for compared in _host(here, production).fields}


@pytest.mark.parametrize("name", ["version", "prepare", "pool_size", "session_replication_role"])
def test_a_field_that_production_does_not_declare_prevents_a_match(name: str) -> None:
    production = {field: value for field, value in POOLED.items() if field != name}
    assert _host(POOLED, production).matches == "partial"


def test_ci_class_is_partial_at_best() -> None:
    found = compare(POOLED, POOLED, evidence_class=EvidenceClass.CI)
    assert found.matches == "partial"
    assert found.paragraph.startswith("CI-class evidence: the harness started staging itself, ")
    assert compare(POOLED, DIRECT, evidence_class=EvidenceClass.CI).matches == "no"


def test_fields_are_named_like_facts_and_settings() -> None:
    """A field under another name would be unknown in every environment."""
    assert list(FIELDS) == [
        *("chain", "pooler", "product", "pool_mode", "prepared_statements", "max_prepared_statements", "prepare"),
        *("pool_size", "version", "server_version", "session_replication_role", "synchronous_commit"),
        *("default_transaction_isolation", "max_prepared_transactions", "idle_in_transaction_session_timeout"),
        *("statement_timeout", "TimeZone"),
    ]


def test_with_and_without_a_pooler_is_no() -> None:
    found = _host(POOLED | {"pooler": "yes"}, POOLED | {"pooler": "no"})
    assert found.matches == "no"
    assert "Because pooler differs, " in found.paragraph


@pytest.mark.parametrize("field", ["chain", "product", "pool_mode"])
def test_a_different_chain_product_or_mode_is_no(field: str) -> None:
    found = _host(POOLED, POOLED | {field: "something else"})
    assert found.matches == "no"
    assert f"{field} is {POOLED[field]} in staging and something else in production: " in found.paragraph
    assert found.paragraph.endswith(
        f"Because {field} differs, evidence from staging does not show how production treats an audited write."
    )


def test_a_different_size_is_partial_and_named_with_both_values() -> None:
    found = compare(
        POOLED, POOLED | {"pool_size": "4"}, evidence_class=EvidenceClass.HOST, names=("integration", "live")
    )
    assert found.matches == "partial"
    assert "pool_size is 20 in integration and 4 in live: clients share" in found.paragraph
    assert "The same in both: chain (application to PgBouncer to PostgreSQL), product (PgBouncer)" in found.paragraph


@pytest.mark.parametrize(
    "field", ["chain", "product", "pool_mode", "pool_size", "prepared_statements", "server_version"]
)
def test_a_field_that_a_match_needs_must_be_known_in_both(field: str) -> None:
    less = {key: value for key, value in POOLED.items() if key != field}
    for here, there in ((less, POOLED), (POOLED, less), (less, less), (POOLED | {field: "unknown"}, POOLED)):
        found = _host(here, there)
        assert found.matches == "partial"
        assert "The evidence does not cover behaviour that depends on an unknown value." in found.paragraph


def test_a_field_that_only_production_has_is_unknown() -> None:
    found = _host(POOLED, POOLED | {"server_reset_query": "DISCARD ALL"})
    assert found.matches == "partial"
    assert found.fields[-1].field == "server_reset_query"
    assert "Unknown: server_reset_query (staging: unknown, production: DISCARD ALL)." in found.paragraph


def test_a_field_that_only_staging_has_does_not_prevent_a_match() -> None:
    found = _host(POOLED | {"statement_timeout": "30s", "tls_client": "used"}, POOLED)
    assert found.matches == "yes"
    assert found.undeclared == ("statement_timeout",)


@each_row(
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
        ("version", "1.24.1RC1", "1.24.1rc1", "same"),
        ("version", "1.24.1rc1", "1.24.1rc2", "differs"),
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
def test_values_are_the_same_only_if_they_are_exact_and_equal(field: str, here: str, there: str, verdict: str) -> None:
    assert _verdict(field, here, there) == verdict
    assert _verdict(field, there, here) == verdict


def test_a_bound_that_includes_the_value_is_likely_compatible() -> None:
    found = _host(POOLED, POOLED | {"version": ">= 1.23"})
    assert found.matches == "partial"
    assert (
        "version (staging: 1.24.1, production: >= 1.23; likely compatible: >= 1.23 includes 1.24.1)" in found.paragraph
    )


def test_a_missing_chain_is_derived_from_the_pooler() -> None:
    found = _host(POOLED | {"pooler": "yes"}, {"pooler": "no", "server_version": "17.5"})
    assert found.matches == "no"
    assert "chain is with a pooler in staging and direct in production" in found.paragraph


def test_a_side_that_knows_neither_chain_nor_pooler_has_no_chain() -> None:
    found = _host({"pooler": "yes", **SERVER}, SERVER)
    chain = found.fields[0]
    assert (chain.field, chain.here, chain.there, chain.verdict) == ("chain", "", "", "unknown")


def test_a_chain_is_not_derived_unless_both_sides_know_their_pooler() -> None:
    found = _host(POOLED | {"pooler": "yes"}, SERVER)
    chain = found.fields[0]
    assert (chain.field, chain.here, chain.there, chain.verdict) == ("chain", POOLED["chain"], "", "unknown")
    assert found.undeclared == ()  # the chain says whether there is a pooler


def test_fields_are_ordered_by_seriousness_then_by_name() -> None:
    backwards = dict(reversed(list((POOLED | {"zzz": "1", "aaa": "1"}).items())))
    names = [compared.field for compared in _host(POOLED, backwards).fields]
    assert names == [*(name for name in FIELDS if name in POOLED), "aaa", "zzz"]


def test_nothing_declared_is_partial() -> None:
    found = _host(POOLED, {})
    assert found.matches == "partial"
    assert {compared.verdict for compared in found.fields} == {"unknown"}


def test_values_from_outside_do_not_break_the_line() -> None:
    found = _host(POOLED, POOLED | {"pool_size": "4 |\r\n# <b>\u2028" + "x" * 500})
    assert len(found.paragraph.splitlines()) == 1
    assert len(found.paragraph) < 1500


# --- bounds ----------------------------------------------------------------------------------------------


@each_row(
    ("bound", "inside", "outside"),
    [
        ("> 1.23", ["1.23.1", "1.24", "2"], ["1.23", "1.23.0", "1.22.9"]),
        (">= 1.23", ["1.23", "1.23.0", "1.24"], ["1.22", "1"]),
        ("at least 1.23", ["1.23", "1.24"], ["1.22"]),
        ("< 1.25", ["1.24", "1.24.99"], ["1.25", "1.25.0", "1.26"]),
        ("<= 1.25", ["1.25", "1.25.0", "1.24"], ["1.25.1", "1.26"]),
        ("At Most 1.25", ["1.25"], ["1.25.1"]),
        ("> 1.20, < 1.23", ["1.21"], ["1.20", "1.23"]),
        ("> 1.20 and <= 1.23", ["1.23"], ["1.20", "1.24"]),
    ],
)
def test_a_bound_rules_out_the_values_outside_of_it(bound: str, inside: list[str], outside: list[str]) -> None:
    assert {value: _verdict("version", value, bound) for value in inside} == dict.fromkeys(inside, "unknown")
    assert {value: _verdict("version", value, bound) for value in outside} == dict.fromkeys(outside, "differs")


@each_row(
    "value", ["~> 1.24", "^1", "about 20", "Around 20", "1.24.x", "1.24.*", "1.24+", "17 or later"]
)
def test_a_value_that_is_not_exact_is_never_the_same(value: str) -> None:
    assert _verdict("version", "1.24", value) == "unknown"
    assert f"; {value} is not an exact value)" in _host(POOLED, POOLED | {"version": value}).paragraph


@pytest.mark.parametrize("there", ["1.24.1", "1.23", "< 1.24", "unknown"])
def test_a_verdict_needs_no_note_where_the_values_say_it(there: str) -> None:
    found = _host(POOLED, POOLED | {"version": there})
    assert {compared.note for compared in found.fields} == {""}


def test_two_values_that_are_not_exact_are_unknown_although_they_are_equal() -> None:
    found = _host(POOLED | {"version": ">= 1.23"}, POOLED | {"version": ">= 1.23"})
    assert found.matches == "partial"
    assert "version (staging: >= 1.23, production: >= 1.23; neither value is exact)" in found.paragraph


def test_a_less_exact_version_is_likely_compatible() -> None:
    found = _host(POOLED | {"version": "1.24"}, POOLED | {"version": "1.24.1"})
    assert "; likely compatible: one of the versions is less exact)" in found.paragraph


@pytest.mark.parametrize(
    ("field", "here", "there"), [("pool_size", "4", "4.5"), ("synchronous_commit", "1s", "1000ms")]
)
def test_only_versions_have_parts_and_only_timeouts_have_units(field: str, here: str, there: str) -> None:
    assert _verdict(field, here, there) == "differs"


@pytest.mark.parametrize(
    ("here", "there", "verdict"),
    [
        ("60s", "1min", "same"),
        ("1h", "3600000", "same"),
        ("1 d", "24h", "same"),
        ("1ms", "1000us", "same"),
        ("1s", "1ms", "differs"),
        ("0", "0ms", "same"),
    ],
)
def test_timeouts_are_compared_by_duration(here: str, there: str, verdict: str) -> None:
    assert _verdict("statement_timeout", here, there) == verdict
    assert _verdict("idle_in_transaction_session_timeout", here, there) == verdict


@pytest.mark.parametrize("value", ["", " ", "unknown", "Unknown pooler", "Not run: no run verified it", "?", "???"])
def test_a_value_that_says_nothing_is_unknown(value: str) -> None:
    for here, there, known in ((value, "20", ("", "20")), ("20", value, ("20", ""))):
        found = _host(POOLED | {"pool_size": here}, POOLED | {"pool_size": there})
        compared = next(compared for compared in found.fields if compared.field == "pool_size")
        assert (compared.here, compared.there, compared.verdict) == (*known, "unknown")


# --- sentences -------------------------------------------------------------------------------------------


def test_the_paragraph_of_a_host_with_differences_and_unknown_values() -> None:
    here = POOLED | {"pool_size": "4", "statement_timeout": "30s"}
    production = {name: value for name, value in POOLED.items() if name != "version"} | {"tls": "required"}
    assert _host(here, production).paragraph == (
        "Host-class evidence: staging was compared with what is declared of production. "
        "The same in both: chain (application to PgBouncer to PostgreSQL), product (PgBouncer), "
        "pool_mode (transaction), prepared_statements (tracked), prepare (unnamed), server_version (17.5), "
        "session_replication_role (origin), synchronous_commit (on) and default_transaction_isolation "
        "(read committed). "
        "pool_size is 4 in staging and 20 in production: clients share server connections more often in one than in "
        "the other. "
        "Unknown: version (staging: 1.24.1, production: unknown); tls (staging: unknown, production: required). "
        "Not compared, because production declares no value: statement_timeout. "
        "Evidence from staging applies to production only where it does not depend on a difference. "
        "The evidence does not cover behaviour that depends on an unknown value."
    )


def test_the_paragraph_of_a_topology_without_differences() -> None:
    found = compare(DIRECT, DIRECT, evidence_class=EvidenceClass.CI, names=("direct", "live"))
    assert found.paragraph == (
        "CI-class evidence: the harness started direct itself, so it can show a class of topology, but never that "
        "direct is live. The same in both: chain (direct), server_version (17.5), session_replication_role (origin), "
        "synchronous_commit (on) and default_transaction_isolation (read committed)."
    )


def test_all_decisive_differences_are_named_together() -> None:
    found = _host(POOLED, POOLED | {"product": "Odyssey", "pool_mode": "session", "pool_size": "4"})
    assert found.paragraph.endswith(
        "Because product and pool_mode differ, evidence from staging does not show how production treats an audited "
        "write."
    )
    assert "applies to production only" not in found.paragraph


def test_a_difference_in_a_field_without_a_known_consequence_says_so() -> None:
    found = _host(POOLED | {"tls": "off"}, POOLED | {"tls": "on"})
    assert found.matches == "partial"
    assert "tls is off in staging and on in production: behaviour that depends on it may differ." in found.paragraph


@each_row("field", FIELDS)
def test_every_difference_is_printed_with_its_consequence(field: str) -> None:
    found = _host(POOLED | {field: "some value"}, POOLED | {field: "another value"})
    assert f"{field} is some value in staging and another value in production: {FIELDS[field]}." in found.paragraph


@pytest.mark.parametrize(("length", "shown"), [(120, "x" * 120), (121, "x" * 119 + "…")])
def test_a_long_value_is_cut_where_it_would_pass_120_characters(length: int, shown: str) -> None:
    found = _host(POOLED | {"pool_mode": "x" * length}, POOLED)
    assert f"pool_mode is {shown} in staging and transaction" in found.paragraph


# --- properties ------------------------------------------------------------------------------------------

_VALUES = st.sampled_from(
    ["", "unknown", "direct", "PgBouncer", "transaction", "20", "17.5", "17", ">= 17", "at least 3", "none", "a\n|b"]
) | st.text(max_size=12)
_SIDES = st.dictionaries(st.sampled_from([*FIELDS, "other"]), _VALUES)


@given(here=_SIDES, there=_SIDES, kind=st.sampled_from(EvidenceClass))
def test_yes_requires_host_class_evidence_and_equality(
    here: dict[str, str], there: dict[str, str], kind: EvidenceClass
) -> None:
    found = compare(here, there, evidence_class=kind)
    verdicts = {compared.verdict for compared in found.fields}
    assert found.matches != "yes" or (kind is EvidenceClass.HOST and verdicts == {"same"})
    assert found.matches == "no" or not any(
        compared.verdict == "differs"
        for compared in found.fields
        if compared.field in {"chain", "product", "pool_mode"}
    )
    assert {"chain", "server_version"} <= {compared.field for compared in found.fields}
    assert found.paragraph.endswith(".")


@given(here=_SIDES, there=_SIDES)
def test_same_is_symmetric(here: dict[str, str], there: dict[str, str]) -> None:
    def same(found: Comparison) -> set[str]:
        return {compared.field for compared in found.fields if compared.verdict == "same"}

    assert same(_host(here, there)) == same(_host(there, here))


@given(side=_SIDES)
def test_an_environment_never_differs_from_itself(side: dict[str, str]) -> None:
    assert "differs" not in {compared.verdict for compared in _host(side, side).fields}
