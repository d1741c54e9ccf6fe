"""The faulty variants of the sound trails: each changes the SQL of its trail, under a name of its own."""

from __future__ import annotations

from collections import Counter

import pytest

from harness import places
from harness.errors import ConfigError
from harness.mutants.survivors import SURVIVORS
from harness.mutants.variant import Variant
from harness.mutants.variants import SOUND, chosen, noticed_by, sql_of, target_file_of, variants
from harness.suites.catalogue import catalogue
from tests.tables import each_row

#: how many there are at least: of all, and of those that were written without having read the checks
_ALL, _BLIND = 230, 40


@each_row("variant", variants(), ids=[variant.full_name for variant in variants()])
def test_a_variant_changes_the_sql_of_its_trail(variant: Variant) -> None:
    sql = target_file_of(variant.trail).with_suffix(".sql").read_text(encoding="utf-8")
    assert sql_of(variant).strip() != sql.strip()
    for old, new in variant.replace:
        assert old in sql
        assert new != old
        sql = sql.replace(old, new)


def test_a_text_that_does_not_occur_is_named() -> None:
    variant = Variant(trail=SOUND[0], name="none", fault="None.", kind="values", replace=(("no such text", ""),))
    with pytest.raises(ConfigError, match="no text 'no such text'"):
        sql_of(variant)


def test_names_are_unique() -> None:
    names = Counter(variant.full_name for variant in variants())
    assert [name for name, count in names.items() if count > 1] == []


def test_no_two_variants_are_the_same() -> None:
    texts = Counter((variant.trail, sql_of(variant)) for variant in variants())
    assert max(texts.values()) == 1


def test_a_fault_is_one_sentence() -> None:
    faults = [variant.fault for variant in variants()]
    assert [fault for fault in faults if not fault.endswith(".") or ". " in fault or "{" in fault] == []


def test_there_are_enough_variants_and_many_were_written_without_the_checks() -> None:
    assert len(variants()) >= _ALL
    assert sum(variant.blind for variant in variants()) >= _BLIND


def test_variants_are_chosen_by_name_and_by_kind() -> None:
    first = variants()[0]
    assert chosen([first.full_name]) == (first,)
    assert set(chosen([first.kind])) == {variant for variant in variants() if variant.kind == first.kind}
    assert chosen([]) == variants()


@pytest.mark.parametrize("name", ["actor-id-trimed", *SOUND])
def test_a_name_that_no_variant_has_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown variant '{name}'"):
        chosen([name])


def test_known_survivors_are_variants_and_the_limits_name_them() -> None:
    limits = (places.SHIPPED / "docs" / "limits.md").read_text(encoding="utf-8")
    assert SURVIVORS.keys() <= {variant.full_name for variant in variants()}
    assert [name for name in SURVIVORS if f"`{name}`" not in limits] == []


def test_the_checks_that_noticed_variants_exist() -> None:
    checks = {check.id for check in catalogue().checks}
    assert {name: check for name, check in noticed_by().items() if check not in checks} == {}
    assert noticed_by().keys() <= {variant.full_name for variant in variants()}
