"""The faulty variants of the sound trails: each changes the SQL of one of them, and has one fault.

`trails/variants/*.toml` holds those that were written by hand, and :mod:`harness.mutants.generated` makes the others.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from harness import config
from harness.errors import ConfigError
from harness.mutants.generated import generated_variants
from harness.mutants.survivors import SURVIVORS
from harness.mutants.variant import Variant, VariantFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["SOUND", "Variant", "chosen", "noticed_by", "sql_of", "target_file_of", "variants"]

_TRAILS = Path(__file__).parent / "trails"
#: the names of the sound trails
SOUND = tuple(path.stem for path in sorted((_TRAILS / "sound").glob("*.toml")))


def target_file_of(trail: str) -> Path:
    """Return the target file of a sound trail, which its variants share."""
    return _TRAILS / "sound" / f"{trail}.toml"


@cache
def variants() -> tuple[Variant, ...]:
    """Return all variants, and at the beginning those that were written without having read the checks."""
    written = (
        variant
        for path in sorted((_TRAILS / "variants").glob("*.toml"))
        for variant in config.load(path, VariantFile).variant
    )
    found = sorted((*written, *generated_variants()), key=lambda variant: not variant.blind)
    return tuple(replace(variant, survives=SURVIVORS.get(variant.full_name, "")) for variant in found)


def sql_of(variant: Variant) -> str:
    """Return the SQL that installs a variant.

    :raises ConfigError: when a text that it replaces does not occur.
    """
    sql = target_file_of(variant.trail).with_suffix(".sql").read_text(encoding="utf-8")
    for old, new in variant.replace:
        if old not in sql:
            raise ConfigError(f"the SQL of {variant.trail} has no text {old!r}", where=f"variant {variant.full_name}")
        sql = sql.replace(old, new)
    return f"{sql}\n{variant.append}"


@cache
def noticed_by() -> dict[str, str]:
    """Return the check that noticed a variant when this file was written, by its full name: it is tried first."""
    path = _TRAILS / "noticed.json"
    return msgspec.json.decode(path.read_bytes(), type=dict[str, str])


def chosen(named: Sequence[str]) -> tuple[Variant, ...]:
    """Return the variants that are named by their own name, with or without their trail, or by their kind.

    :param named: all variants when empty.
    :raises ConfigError: for a name that no variant has, such as that of a trail alone.
    """
    if not named:
        return variants()
    for name in named:
        known = {text for variant in variants() for text in _names(variant)}
        if name not in known:
            raise ConfigError(f"unknown variant {name!r}", hint=config.close_to(name, known) or _kinds())
    return tuple(variant for variant in variants() if set(named) & set(_names(variant)))


def _kinds() -> str:
    return f"choose a kind of variants: {', '.join(sorted({variant.kind for variant in variants()}))}"


def _names(variant: Variant) -> Iterable[str]:
    return variant.name, variant.full_name, variant.kind
