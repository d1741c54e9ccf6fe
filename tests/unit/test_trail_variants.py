"""The faulty variants of the sound trails: each changes the SQL of its trail, under a name of its own."""

from __future__ import annotations

import tomllib
from collections import Counter
from pathlib import Path

import pytest

import harness

TRAILS = Path(harness.__file__).parent / "mutants" / "trails"
VARIANTS = [
    variant
    for path in sorted((TRAILS / "variants").glob("*.toml"))
    for variant in tomllib.loads(path.read_text(encoding="utf-8"))["variant"]
]


@pytest.mark.parametrize("variant", VARIANTS, ids=[f"{variant['trail']}-{variant['name']}" for variant in VARIANTS])
def test_a_variant_changes_the_sql_of_its_trail(variant: dict[str, object]) -> None:
    sql = (TRAILS / "sound" / f"{variant['trail']}.sql").read_text(encoding="utf-8")
    pairs = variant.get("replace", [])
    assert isinstance(pairs, list)
    assert pairs or variant.get("append")
    for old, new in pairs:
        assert old in sql
        assert new != old
        sql = sql.replace(old, new)


def test_names_are_unique() -> None:
    names = Counter((variant["trail"], variant["name"]) for variant in VARIANTS)
    assert [name for name, count in names.items() if count > 1] == []


def test_a_fault_is_one_sentence() -> None:
    faults = [variant["fault"] for variant in VARIANTS]
    assert [fault for fault in faults if not fault.endswith(".") or ". " in fault] == []


def test_at_least_forty_variants_were_written_without_the_checks() -> None:
    assert sum(variant.get("blind", False) for variant in VARIANTS) >= 40
