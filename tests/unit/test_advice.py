"""Advice for features that do not work behind a pooler."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness import places
from harness.checks.documented import load_behaviour_file
from harness.errors import ConfigError
from harness.suites.catalogue import catalogue
from harness.suites.pooling.advice import advice_for, load_advice, practices, require_known, shipped_advice

if TYPE_CHECKING:
    from pathlib import Path

FEATURES = frozenset(
    check.id.partition(".")[2] for check in catalogue().checks if check.feature and check.id.startswith("pooling.")
)
ENTRY = '[[advice]]\nfeatures = ["listen"]\ninstead = "Use a direct connection."\nsource = "https://example.org/"\n'


def test_each_feature_that_fails_behind_pgbouncer_has_advice() -> None:
    entries = load_behaviour_file(places.TOPOLOGIES / "behaviour" / "pgbouncer.toml").behaviour
    failing = {feature for entry in entries if entry.outcome != "works" for feature in entry.features}
    without = {name for name in failing & FEATURES if name not in shipped_advice()}
    # an error is the right answer to a name that is in use; PgBouncer's defect has no documented workaround
    assert without <= {"parse-again"}


def test_advice_is_about_known_features() -> None:
    require_known(shipped_advice(), FEATURES)
    with pytest.raises(ConfigError, match=r"unknown feature 'listen'"):
        require_known(shipped_advice(), FEATURES - {"listen"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ENTRY + ENTRY, "'listen' has two entries"),
        (ENTRY.replace("connection.", "connection"), "instead"),
        (ENTRY.replace("Use", "Use" * 70), "instead"),
        (ENTRY.replace("https", "http"), "source"),
        (ENTRY + "other = 1\n", "other"),
    ],
)
def test_invalid_advice_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "advice.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message) as raised:
        load_advice(path)
    assert str(path) in str(raised.value.where)


def test_advice_of_a_check() -> None:
    found = advice_for("pooling.advisory-lock")
    assert found is not None
    assert "pg_advisory_xact_lock" in found.instead
    assert advice_for("drivers.listen") is None


def test_each_check_of_a_careless_application_says_what_to_do_instead() -> None:
    careless = {check.id for check in catalogue().checks if check.id.startswith("actor.careless-")}
    assert set(practices()) == careless
    for check in careless:
        assert advice_for(check) == practices()[check]
    assert all((places.PACKAGE.parent / one.source).is_file() or "://" in one.source for one in practices().values())
