"""The files of documented behaviour: which entries are valid, and which outcomes they document."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from harness import places
from harness.checks.conditions import Facts
from harness.checks.documented import (
    BehaviourEntry,
    better_than,
    documented,
    load_behaviour,
    load_behaviour_file,
    newer_than_seen,
    read_outcome,
)
from harness.errors import ConfigError
from harness.model import Behaviour, Outcome, PoolMode
from harness.suites.catalogue import catalogue
from harness.versions import numbers_of
from tests.tables import each_row
from tests.unit.made_up import stood

if TYPE_CHECKING:
    from pathlib import Path

PRODUCTS = [path.stem for path in (places.TOPOLOGIES / "behaviour").glob("*.toml")]
FEATURES = {
    check.id.partition(".")[2] if check.id.startswith("pooling.") else f"driver-{check.id.partition('.')[2]}"
    for check in catalogue().checks
    if check.feature
}

outcomes = st.builds(
    Outcome,
    behaviour=st.just(Behaviour.FAILS),
    sqlstate=st.one_of(st.just(""), st.from_regex(r"[0-9A-Z]{5}", fullmatch=True)),
    closed=st.booleans(),
) | st.builds(Outcome, behaviour=st.sampled_from(Behaviour))


@given(outcomes)
def test_an_outcome_is_read_back_from_its_spelling(outcome: Outcome) -> None:
    assert read_outcome(str(outcome)) == outcome


@given(st.text())
def test_any_other_text_is_an_error_that_lists_the_outcomes(text: str) -> None:
    try:
        assert str(read_outcome(text)) in {text, text.replace(" ()", "")}
    except ConfigError as error:
        assert "expected one of works, fails, hangs, lost, wrong, leaks" in error.what


@pytest.mark.parametrize("product", PRODUCTS)
def test_every_entry_names_known_features(product: str) -> None:
    assert {feature for entry in entries(product) for feature in entry.features} <= FEATURES


#: an issue, a change, or the source code at a commit: a branch may change
_SHOWS_A_DEFECT = re.compile(r"/issues/|/pull/|\?id=CVE-|/blob/[0-9a-f]{8,40}/")


@pytest.mark.parametrize("product", PRODUCTS)
def test_a_defect_links_an_issue_or_its_code_and_ends_only_with_a_version_that_was_seen(product: str) -> None:
    loaded = load_behaviour(product)
    assert loaded
    for entry in loaded.behaviour:
        if entry.defect:
            assert _SHOWS_A_DEFECT.search(entry.source)
            if entry.before:
                assert any(numbers_of(seen) >= numbers_of(entry.before) for seen in loaded.seen)


def entries(product: str) -> tuple[BehaviourEntry, ...]:
    loaded = load_behaviour(product)
    assert loaded
    return loaded.behaviour


#: what PostgreSQL reports to clients: since 14 two more parameters, since 18 search_path
REPORTED_17 = (
    "application_name", "client_encoding", "datestyle", "default_transaction_read_only", "in_hot_standby",
    "intervalstyle", "is_superuser", "session_authorization", "standard_conforming_strings", "timezone",
)  # fmt: skip
REPORTED_18 = (*REPORTED_17, "search_path")
DEFAULTS = {
    "server_reset_query": "DISCARD ALL",
    "server_reset_query_always": "0",
    "server_lifetime": "3600",
    "ignore_startup_parameters": "",
    "max_prepared_statements": "200",
    "instances": "1",
    "peered": "false",
}
SESSION, TRANSACTION, STATEMENT = PoolMode.SESSION, PoolMode.TRANSACTION, PoolMode.STATEMENT


def facts(
    mode: PoolMode, version: str, reported: tuple[str, ...] = REPORTED_17, product: str = "pgbouncer", **settings: str
) -> Facts:
    return Facts(product=product, mode=mode, version=version, settings=DEFAULTS | settings, reported=reported)


def expected(feature: str, chain: Facts) -> str:
    return " or ".join(map(str, documented(feature, chain).outcomes()))


@each_row(
    ("feature", "mode", "version", "settings", "outcomes"),
    [
        ("named-kept", TRANSACTION, "1.24.1", {}, "works"),
        ("named-kept", TRANSACTION, "1.24.1", {"max_prepared_statements": "0"}, "fails (26000)"),
        ("named-kept", SESSION, "1.18.0", {"max_prepared_statements": "0"}, "works"),
        ("discard-all", TRANSACTION, "1.21.0", {}, "fails (26000)"),
        ("discard-all", TRANSACTION, "1.22.0", {}, "works"),
        ("interval-style-kept", STATEMENT, "1.18.0", {}, "lost"),
        ("interval-style-kept", STATEMENT, "1.20.0", {}, "works"),
        ("interval-style-kept", TRANSACTION, "1.24.1", {"track_extra_parameters": "search_path"}, "lost"),
        ("interval-style-apart", SESSION, "1.18.0", {"server_reset_query": ""}, "leaks"),
        ("unnamed-mixed-up", TRANSACTION, "1.26.1", {}, "wrong or fails (26000)"),
        ("parse-again", TRANSACTION, "unknown", {}, "fails (08P01, closed)"),
        ("cancel", TRANSACTION, "1.24.1", {"instances": "2"}, "lost"),
        ("cancel", TRANSACTION, "1.24.1", {"instances": "2", "peered": "true"}, "works"),
        ("cancel", TRANSACTION, "1.18.0", {"instances": "2", "peered": "true"}, "lost"),
        # what the reset query resets, in the modes that run it
        ("setting-apart", TRANSACTION, "1.24.1", {}, "leaks"),
        ("setting-apart", TRANSACTION, "1.24.1", {"server_reset_query_always": "1"}, "works"),
        ("setting-apart", SESSION, "1.24.1", {"server_reset_query": ""}, "leaks"),
        ("setting-apart", SESSION, "1.24.1", {}, "works"),
        ("setting-apart", SESSION, "1.24.1", {"server_reset_query": "DEALLOCATE ALL"}, "leaks"),
        ("sql-prepare-apart", SESSION, "1.24.1", {"server_reset_query": "deallocate  ALL;"}, "works"),
        ("setting-apart", SESSION, "1.24.1", {"server_reset_query": "RESET ALL"}, "works"),
        ("role-apart", SESSION, "1.24.1", {"server_reset_query": "RESET ALL"}, "leaks"),
        ("role-apart", SESSION, "1.24.1", {"server_reset_query": "RESET SESSION AUTHORIZATION"}, "works"),
        ("search-path-apart", SESSION, "1.24.1", {"server_reset_query": "RESET search_path"}, "works"),
        ("leftovers", SESSION, "1.24.1", {"server_reset_query": "RESET ALL; DISCARD TEMP"}, "leaks"),
        ("setting-apart", TRANSACTION, "1.24.1", {"server_lifetime": "0"}, "works"),
        # a query that is not understood contradicts nothing
        ("setting-apart", SESSION, "1.24.1", {"server_reset_query": "SELECT app.clean()"}, "works or leaks"),
        ("setting-apart", SESSION, "1.24.1", {"server_reset_query": "RESET ALL; SELECT app.clean()"}, "works"),
        ("temp-table-apart", SESSION, "1.24.1", {"server_reset_query": "RESET ALL; SELECT app.clean()"}, "works or leaks"),
        ("deallocate", TRANSACTION, "1.24.1", {"max_prepared_statements": "0"}, "works"),
        ("deallocate", TRANSACTION, "1.24.1", {"max_prepared_statements": "0", "server_reset_query_always": "1"}, "fails (26000)"),
        ("parameter-status-set", TRANSACTION, "1.18.0", {}, "works"),
        ("parameter-status-set", TRANSACTION, "1.18.0", {"server_reset_query_always": "1"}, "wrong"),
        ("parameter-status-set", SESSION, "1.18.0", {"server_reset_query_always": "1"}, "works"),
        # lists of names
        ("startup-options", SESSION, "1.24.1", {}, "fails (08P01, closed)"),
        ("startup-options", SESSION, "1.24.1", {"ignore_startup_parameters": " extra_float_digits , options"}, "lost"),
        ("startup-options", SESSION, "1.24.1", {"ignore_startup_parameters": "OPTIONS"}, "fails (08P01, closed)"),
        ("startup-float-digits", SESSION, "1.24.1", {"ignore_startup_parameters": "a extra_float_digits"}, "lost"),
        ("startup-options", SESSION, "1.18.0", {"ignore_startup_parameters": "statement_timeout"}, "fails (08P01, closed)"),
        ("startup-options", SESSION, "1.24.1", {"ignore_startup_parameters": "extra_float_digits,statement_timeout"}, "lost"),
        ("startup-options", SESSION, "1.24.1", {"ignore_startup_parameters": "my_options"}, "fails (08P01, closed)"),
        ("startup-options", SESSION, "1.20.0", {"ignore_startup_parameters": "options"}, "fails (08P01, closed)"),
        ("startup-interval-style", SESSION, "1.24.1", {"ignore_startup_parameters": "IntervalStyle"}, "works"),
        ("startup-interval-style", SESSION, "1.26.1", {"ignore_startup_parameters": "IntervalStyle"}, "lost"),
        ("startup-tracked", SESSION, "1.26.1", {"ignore_startup_parameters": "TimeZone"}, "lost"),
        # tracked parameters
        ("read-only-kept", TRANSACTION, "1.24.1", {}, "lost"),
        ("read-only-kept", TRANSACTION, "1.24.1", {"track_extra_parameters": "IntervalStyle,default_transaction_read_only"}, "works"),
        ("read-only-apart", TRANSACTION, "1.24.1", {"track_extra_parameters": "IntervalStyle,default_transaction_read_only"}, "works"),
        ("read-only-kept", TRANSACTION, "1.26.1", {}, "works"),
        ("session-authorization-apart", TRANSACTION, "1.26.1", {}, "works"),
        ("search-path-kept", TRANSACTION, "1.26.1", {}, "fails (42P01)"),
        ("search-path-kept", TRANSACTION, "1.24.1", {"track_extra_parameters": "search_path"}, "fails (42P01)"),
    ],
)  # fmt: skip
def test_the_first_entry_that_applies_decides(
    feature: str, mode: PoolMode, version: str, settings: dict[str, str], outcomes: str
) -> None:
    assert expected(feature, facts(mode, version, REPORTED_17, **settings)) == outcomes


@pytest.mark.parametrize("feature", ["search-path-kept", "search-path-apart", "startup-search-path"])
def test_search_path_is_tracked_where_the_server_reports_it(feature: str) -> None:
    for version, extra in (("1.26.1", ""), ("1.24.1", "IntervalStyle, search_path")):
        chain = facts(TRANSACTION, version, REPORTED_18, track_extra_parameters=extra)
        assert expected(feature, chain) == "works"


def test_single_names_count_within_startup_options() -> None:
    ignored = facts(TRANSACTION, "1.24.1", REPORTED_17, ignore_startup_parameters="extra_float_digits, app.actor")
    for option, outcome in (
        ("app.actor", "lost"),
        ("extra_float_digits", "lost"),
        ("statement_timeout", "fails (08P01, closed)"),
        ("TimeZone", "works"),
    ):
        assert expected("startup-options", replace(ignored, option=option.casefold())) == outcome


def test_a_reset_query_of_pgpool_is_judged_like_that_of_pgbouncer() -> None:
    chain = facts(SESSION, "4.6.0", product="pgpool")
    assert expected("temp-table-apart", chain) == "works"
    light = facts(SESSION, "4.6.0", product="pgpool", reset_query_list="'ABORT; DEALLOCATE ALL'")
    assert expected("temp-table-apart", light) == "leaks"
    assert expected("sql-prepare-apart", light) == "works"


@each_row(
    ("product", "version", "feature", "outcome", "is_defect"),
    [
        ("pgagroal", "1.6.0", "startup-tracked", "works", False),
        ("pgagroal", "2.1.0", "startup-tracked", "lost", True),
        ("pgagroal", "1.6.0", "tracked-settings-apart", "works", False),
        ("pgagroal", "2.1.0", "tracked-settings-apart", "wrong", True),
        ("pgagroal", "1.6.0", "cancel", "fails", True),
        ("pgagroal", "2.1.0", "cancel", "fails", True),
        ("pgagroal", "2.1.0", "cancel-old", "works", False),
        ("pgagroal", "1.6.0", "replication", "fails (closed)", True),
        ("pgagroal", "2.1.0", "server-down", "fails (53300, closed)", False),
        ("pgpool", "4.6.0", "cancel-late", "wrong", True),
        ("pgpool", "4.7.3", "cancel-late", "wrong", True),
    ],
)
def test_what_the_source_code_of_a_product_shows_is_a_known_defect_of_its_versions(
    product: str, version: str, feature: str, outcome: str, is_defect: bool
) -> None:
    chain = facts(SESSION, version, product=product)
    assert expected(feature, chain) == outcome
    entry = documented(feature, chain).entry
    assert (entry is not None and entry.defect) is is_defect


@pytest.mark.parametrize(
    ("pooler", "server", "named"),
    [
        ("1.24.1", "17.11 (Debian)", []),
        ("1.26.1", "18.6", []),
        ("1.26.2", "18.6", ["PgBouncer 1.26.2"]),
        ("1.27.0", "19.1 (Debian)", ["PgBouncer 1.27.0", "PostgreSQL 19.1"]),
        ("unknown", "unknown", []),
    ],
)
def test_a_version_newer_than_all_that_were_seen_is_named(pooler: str, server: str, named: list[str]) -> None:
    evidence = stood("transaction")
    titles = {"postgres": ("PostgreSQL", server), "pooler": ("PgBouncer", pooler)}
    services = tuple(
        replace(service, title=titles[service.name][0], version=titles[service.name][1])
        for service in evidence.services
    )
    sentences = newer_than_seen(evidence.declared, replace(evidence, services=services))
    assert [sentence.partition(" is newer")[0] for sentence in sentences] == named
    for sentence in sentences:
        assert re.search(r"so [1-9]\d* entries that apply here rest on older versions", sentence)


@each_row(
    ("product", "version", "feature", "older"),
    [
        ("pgpool", "4.7.3", "protocol-3-2", "4.6: fails (XX000, closed) ("),
        ("pgpool", "4.6.0", "protocol-3-2", ""),
        ("pgpool", "unknown", "protocol-3-2", ""),
        ("pgpool", "4.7.3", "autocommit", ""),
        ("pgbouncer", "1.26.1", "read-only-kept", "1.25.1: lost ("),
        ("pgbouncer", "1.25.1", "read-only-kept", ""),
        ("pgbouncer", "1.26.1", "setting-kept", ""),
        ("pgbouncer", "1.18.0", "startup-tracked", ""),
        ("nothing", "2", "autocommit", ""),
    ],
)
def test_a_feature_that_works_is_compared_with_the_last_older_version_that_was_seen(
    product: str, version: str, feature: str, older: str
) -> None:
    mode = SESSION if product == "pgpool" else TRANSACTION
    found = better_than(feature, facts(mode, version, product=product))
    assert found.startswith(older)
    assert bool(found) is bool(older)


def test_a_product_without_a_file_has_no_entries() -> None:
    assert load_behaviour("nothing") is None
    assert expected("setting-apart", facts(SESSION, "1", product="nothing")) == "works"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('outcome = "vanishes"', "behaviour[0].outcome: invalid outcome 'vanishes'"),
        ('outcome = "lost"\nsince = "one"', "since"),
        ('outcome = "lost"\nmode = ["transaction"]', "unknown key"),
        ('outcome = "lost"\nwhen = { server_reset_qery_always = true }', "did you mean server_reset_query_always?"),
        ('outcome = "lost"\nwhen = { tracked = { lack = "x" } }', "unknown predicate of a list of names"),
        ('outcome = "lost"\nwhen = { release = { keeps = "settngs" } }', "did you mean settings?"),
        ('outcome = "lost"\nwhen = { peered = "no" }', "expected true or false"),
        ('outcome = "lost"\nwhen = { instances = { at_least = "2" } }', "expected a number"),
        ('outcome = "lost"\nwhen = { instances = 2 }', "expected a table with is or at_least or below"),
    ],
)
def test_an_error_names_file_and_entry(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f'seen = ["1"]\n[[behaviour]]\nfeatures = ["x"]\nsource = "https://example.org"\n{line}\n')
    with pytest.raises(ConfigError) as caught:
        load_behaviour_file(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)
