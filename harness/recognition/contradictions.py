"""Contradictions between declared values and findings."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from harness.errors import UsageError
from harness.model import Confidence
from harness.recognition.findings import FACTS
from harness.versions import numbers_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.recognition.findings import Recognition

_YES = {"true": "yes", "on": "yes", "1": "yes", "false": "no", "off": "no", "0": "no"}
_YES_OR_NO = {"pooler", "in_recovery", "direct", "same_server"}
_VERSIONS = {"version", "inner_version", "server_version", "direct_server_version"}
_BOUND = re.compile(r"(>=|<) (\d+(?:\.\d+)*)")


def contradictions(recognition: Recognition, declared: Mapping[str, str]) -> tuple[str, ...]:
    """Return a sentence for each declared value that contradicts a certain finding.

    A finding that is only likely contradicts nothing; :func:`doubts` returns it.

    :param declared: fact to value; the facts are the keys of :data:`harness.recognition.findings.FACTS`.
    :raises UsageError: for an unknown fact, or a value without a number where one is expected.
    """
    return _differences(recognition, declared, Confidence.CERTAIN)


def doubts(recognition: Recognition, declared: Mapping[str, str]) -> tuple[str, ...]:
    """Return a sentence for each declared value that differs from a finding that is only likely."""
    return _differences(recognition, declared, Confidence.LIKELY)


def _differences(recognition: Recognition, declared: Mapping[str, str], confidence: Confidence) -> tuple[str, ...]:
    sentences = []
    for fact, value in declared.items():
        if fact not in FACTS:
            raise UsageError(f"unknown fact {fact!r}", hint=f"choose one of: {', '.join(FACTS)}")
        if fact in _VERSIONS | {"pool_size"} and not re.search(r"\d", value) and value.strip() != "none":
            raise UsageError(f"{fact}: invalid value {value!r}, expected a number")
        finding = recognition.finding(fact)
        if finding is None or finding.confidence is not confidence or _agrees(fact, value.strip(), finding.value):
            continue
        sentences.append(
            f"{fact} is declared as {value!r} and found to be {finding.value!r} ({finding.confidence}): {finding.how}"
        )
    return tuple(sentences)


def _agrees(fact: str, declared: str, found: str) -> bool:
    if fact in _VERSIONS:
        return _version_agrees(declared, found)
    if fact == "pool_size" and (least := re.fullmatch(r"at least (\d+)", found)):
        return not declared.isdecimal() or int(declared) >= int(least[1])
    if fact == "product" and found == "unknown pooler":
        return declared.casefold() != "postgresql"
    if fact == "product":
        return declared.casefold() in found.casefold().split(" and ")
    if fact in _YES_OR_NO:
        declared = _YES.get(declared.casefold(), declared)
    return declared.casefold() == found.casefold()


def _version_agrees(declared: str, found: str) -> bool:
    """Compare only the declared numbers: 17 agrees with 17.2, and 1.24 with >= 1.23."""
    numbers = numbers_of(declared)
    bounds = _BOUND.findall(found)
    if not bounds:
        return numbers_of(found)[: len(numbers)] == numbers
    return all(
        numbers >= numbers_of(bound)[: len(numbers)] if sign == ">=" else numbers < numbers_of(bound)
        for sign, bound in bounds
    )
