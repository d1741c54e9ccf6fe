"""The files of documented behaviour: which entries are valid, and which outcomes they document."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import places
from harness.checks.documented import documented, load_behaviour, load_behaviour_file, read_outcome
from harness.errors import ConfigError
from harness.model import Behaviour, Outcome, PoolMode
from harness.suites.catalogue import catalogue

if TYPE_CHECKING:
    from pathlib import Path

PRODUCTS = [path.stem for path in (places.TOPOLOGIES / "behaviour").glob("*.toml")]
FEATURES = {
    check.id.partition(".")[2] if check.id.startswith("pooling.") else f"driver-{check.id.partition('.')[2]}"
    for check in catalogue().checks
    if check.feature
}
TRACKING, BLIND = {"max_prepared_statements": "200"}, {"max_prepared_statements": "0"}

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
    entries = load_behaviour(product)
    assert entries
    assert {feature for entry in entries for feature in entry.features} <= FEATURES


@pytest.mark.parametrize("product", PRODUCTS)
def test_a_defect_ends_with_a_version_and_links_an_issue(product: str) -> None:
    for entry in load_behaviour(product):
        if entry.defect:
            assert entry.before, entry.features
            assert "/issues/" in entry.source


@pytest.mark.parametrize(
    ("feature", "mode", "version", "settings", "expected"),
    [
        ("named-kept", PoolMode.TRANSACTION, "1.24.1", TRACKING, None),
        ("named-kept", PoolMode.TRANSACTION, "1.24.1", BLIND, "fails (26000)"),
        ("named-kept", PoolMode.SESSION, "1.18.0", BLIND, None),
        ("discard-all", PoolMode.TRANSACTION, "1.21.0", TRACKING, "fails (26000)"),
        ("discard-all", PoolMode.TRANSACTION, "1.22.0", TRACKING, None),
        ("interval-style-kept", PoolMode.STATEMENT, "1.18.0", BLIND, "lost"),
        ("interval-style-kept", PoolMode.STATEMENT, "1.20.0", BLIND, None),
        (
            "startup-options",
            PoolMode.SESSION,
            "1.24.1",
            {"ignore_startup_parameters": "extra_float_digits,options"},
            "lost",
        ),
        ("startup-options", PoolMode.SESSION, "1.24.1", {"ignore_startup_parameters": ""}, "fails (08P01, closed)"),
        ("setting-apart", PoolMode.TRANSACTION, "1.24.1", {"server_reset_query_always": "0"}, "leaks"),
        ("setting-apart", PoolMode.TRANSACTION, "1.24.1", {"server_reset_query_always": "1"}, None),
        ("setting-apart", PoolMode.SESSION, "1.24.1", {"server_reset_query": ""}, "leaks"),
        ("setting-apart", PoolMode.SESSION, "1.24.1", {"server_reset_query": "DISCARD ALL"}, None),
        ("unnamed-mixed-up", PoolMode.TRANSACTION, "1.26", TRACKING, None),
        ("parse-again", PoolMode.TRANSACTION, "unknown", TRACKING, None),
        ("cancel", PoolMode.TRANSACTION, "1.24.1", {"instances": "2", "peered": "false"}, "lost"),
        ("cancel", PoolMode.TRANSACTION, "1.24.1", {"instances": "2", "peered": "true"}, None),
        ("cancel", PoolMode.TRANSACTION, "1.18.0", {"instances": "2", "peered": "true"}, "lost"),
    ],
)
def test_the_first_entry_that_applies_decides(
    feature: str, mode: PoolMode, version: str, settings: dict[str, str], expected: str | None
) -> None:
    entry = documented("pgbouncer", feature, mode, version, settings)
    assert (str(entry.outcomes()[0]) if entry else None) == expected


def test_a_product_without_a_file_has_no_entries() -> None:
    assert load_behaviour("nothing") == ()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('outcome = "vanishes"', "behaviour[0].outcome: invalid outcome 'vanishes'"),
        ('outcome = "lost"\nsince = "one"', "since"),
        ('outcome = "lost"\nmode = ["transaction"]', "unknown key"),
    ],
)
def test_an_error_names_file_and_entry(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f'[[behaviour]]\nfeatures = ["x"]\nsource = "https://example.org"\n{line}\n')
    with pytest.raises(ConfigError) as caught:
        load_behaviour_file(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)
