"""Two environments compared field by field, and what that lets anybody say about production.

`yes` is the strongest word of the STG-01 table, so it is given for nothing but equality: of everything that is
declared of production, and of what decides how a pooler treats an audited write.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from harness.model import EvidenceClass

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Sameness = Literal["same", "differs", "unknown"]
Match = Literal["yes", "partial", "no"]

#: what is compared, gravest first, and what hangs on it
FIELDS: dict[str, str] = {
    "chain": "a write passes other servers on its way",
    "pooler": "state of a session either survives between transactions or may not",
    "product": "another product keeps and resets other state of a session",
    "pool_mode": "the mode decides what one client leaves for the next on a server connection",
    "prepared_statements": "repeated statements are treated differently",
    "max_prepared_statements": "repeated statements may be tracked in one and break in the other",
    "prepare": "the client sends repeated statements differently",
    "pool_size": "clients share server connections more often in one than in the other",
    "version": "releases of a pooler differ in what they reset and track",
    "server_version": "releases of the server differ in what triggers and functions do",
    "session_replication_role": "it decides whether capture triggers fire at all",
    "synchronous_commit": "it decides what a crash may take from the trail",
    "default_transaction_isolation": "concurrent writes see different rows",
    "max_prepared_transactions": "two-phase commits are possible in one and refused in the other",
    "idle_in_transaction_session_timeout": "a transaction that waits is ended at another time",
    "statement_timeout": "a long write is cancelled at another time",
    "TimeZone": "times that are written as text differ",
}

_DECISIVE = ("chain", "pooler", "product", "pool_mode")
_ALWAYS_NEEDED = (
    *("chain", "server_version"),
    *("session_replication_role", "synchronous_commit", "default_transaction_isolation"),
)
_NEEDED_WITH_POOLER = ("product", "version", "pool_mode", "pool_size", "prepared_statements", "prepare")

_VERSIONS = ("version", "server_version")
_TIMEOUTS = ("idle_in_transaction_session_timeout", "statement_timeout")
_NO_POOLER = {
    "chain": ("direct", "none", "no pooler", "without pooler", "without a pooler"),
    "pooler": ("no",),
    "product": ("none", "no pooler", "postgresql"),
}
_UNKNOWN = re.compile(r"(unknown\b.*|not run\b.*|\?+|)", re.IGNORECASE | re.DOTALL)
_BOUND = re.compile(r"(>=|<=|>|<|at least|at most)\s*([0-9]{1,9}(?:\.[0-9]{1,9})*)", re.IGNORECASE)
_BOUNDS = re.compile(rf"{_BOUND.pattern}(?:\s*(?:,|and)?\s*{_BOUND.pattern})*", re.IGNORECASE)
#: what else is no exact value: `~> 1.24`, `^1`, `about 20`, `1.24.x`, `1.24+`, `17 or later`
_LOOSE = re.compile(
    r"(?:~|\^|>|<|=|about\b|around\b).*|[0-9][0-9.]*(?:\.[x*]|\+|\s+or (?:later|newer|more))", re.IGNORECASE
)
_NUMBERS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})*")
_DURATION = re.compile(r"([0-9]{1,12})\s*(us|ms|s|min|h|d)?")
_US = {"us": 1, "ms": 1000, "s": 1_000_000, "min": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
_LONGEST_VALUE = 120


class FieldComparison(Struct, frozen=True, kw_only=True):
    """One field in both environments; a value that is not known is ""."""

    field: str
    here: str
    there: str
    verdict: Sameness
    #: what an unknown is likely to come to
    note: str = ""


class Comparison(Struct, frozen=True, kw_only=True):
    """Every field that was compared, gravest first, and what they come to."""

    fields: tuple[FieldComparison, ...]
    matches: Match
    #: why, in plain sentences; the values in it are from outside and are escaped where it is printed
    paragraph: str
    #: fields that are known here, and that nothing is declared about
    undeclared: tuple[str, ...] = ()


def compare(
    here: Mapping[str, str],
    production: Mapping[str, str],
    *,
    evidence_class: EvidenceClass,
    names: tuple[str, str] = ("staging", "production"),
    declared_by: str = "",
) -> Comparison:
    """Compare an environment with what is declared of production.

    Both map names of :data:`FIELDS`, or of other settings, to values. Where one of them has no `chain`, it is told
    from `pooler` (yes or no). What only `here` knows is compared where a match needs it, else listed as undeclared.

    `no`: chain, pooler, product or pool mode differ. `yes`: host-class evidence, and all compared fields known in
    both and the same; these are at least chain and server version, and where there is a pooler its product, mode,
    pool size and prepared statements. Everything else is `partial`, and CI-class evidence is never more than that.

    :param names: what the two are called in the paragraph.
    :param declared_by: who says what production is; those who run it where nobody is named.
    """
    here, production = _with_chains(here, production)
    needed = {*_ALWAYS_NEEDED, *(() if _no_pooler(here) and _no_pooler(production) else _NEEDED_WITH_POOLER)}
    chosen = needed | set(production)
    order = [*(name for name in FIELDS if name in chosen), *sorted(chosen - set(FIELDS))]
    fields = tuple(_compare_field(name, here.get(name, ""), production.get(name, "")) for name in order)
    undeclared = tuple(
        name for name in FIELDS if name not in chosen and _known(here.get(name, "")) and name != "pooler"
    )
    matches = _matches(fields, evidence_class)
    called = (_short(names[0]), _short(names[1]))
    if matches == "yes":
        paragraph = _sameness(fields, called, _short(declared_by))
    else:
        paragraph = _paragraph(fields, matches, evidence_class, called, undeclared)
    return Comparison(fields=fields, matches=matches, paragraph=paragraph, undeclared=undeclared)


def _with_chains(here: Mapping[str, str], there: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return both with their chains in the same words: as each tells it, or both as their `pooler` tells it."""
    sides = (dict(here), dict(there))
    told = {"yes": "with a pooler", "no": "direct"}
    derived = [told.get(side.get("pooler", "").strip().lower(), "") for side in sides]
    if not all(_known(side.get("chain", "")) for side in sides) and all(derived):
        for side, chain in zip(sides, derived, strict=True):
            side["chain"] = chain
    return sides


def _no_pooler(side: Mapping[str, str]) -> bool:
    return any(" ".join(side.get(name, "").split()).casefold() in words for name, words in _NO_POOLER.items())


def _matches(fields: Sequence[FieldComparison], evidence_class: EvidenceClass) -> Match:
    if any(each.verdict == "differs" and each.field in _DECISIVE for each in fields):
        return "no"
    if evidence_class is EvidenceClass.HOST and all(each.verdict == "same" for each in fields):
        return "yes"
    return "partial"


def _compare_field(name: str, here: str, there: str) -> FieldComparison:
    verdict, note = _judge(name, here, there)
    return FieldComparison(
        field=name,
        here=here.strip() if _known(here) else "",
        there=there.strip() if _known(there) else "",
        verdict=verdict,
        note=note,
    )


def _judge(name: str, here: str, there: str) -> tuple[Sameness, str]:
    if not _known(here) or not _known(there):
        return "unknown", ""
    values = (" ".join(here.split()), " ".join(there.split()))
    loose = [value for value in values if _BOUNDS.fullmatch(value) or _LOOSE.fullmatch(value)]
    if len(loose) == len(values):
        return "unknown", "neither is an exact value"
    if loose:
        exact = values[0] if loose[0] == values[1] else values[1]
        return _against_bound(loose[0], exact)
    first, second = (_exact(name, value) for value in values)
    if first == second:
        return "same", ""
    if name in _VERSIONS and _one_says_less(first, second):
        return "unknown", "likely compatible: one names the release less exactly than the other"
    return "differs", ""


def _against_bound(bound: str, exact: str) -> tuple[Sameness, str]:
    """A bound is never the same as a value; it may still rule one out."""
    number = _NUMBERS.search(exact)
    if not _BOUNDS.fullmatch(bound) or number is None:
        return "unknown", f"{_short(bound)} is no exact value"
    if all(_satisfies(number[0], sign.lower(), limit) for sign, limit in _BOUND.findall(bound)):
        return "unknown", f"likely compatible: {_short(bound)} admits {number[0]}"
    return "differs", ""


def _satisfies(number: str, sign: str, limit: str) -> bool:
    left, right = ([int(part) for part in text.split(".")] for text in (number, limit))
    width = max(len(left), len(right))
    left, right = ([*parts, *[0] * (width - len(parts))] for parts in (left, right))
    match sign:
        case ">=" | "at least":
            return left >= right
        case "<=" | "at most":
            return left <= right
        case ">":
            return left > right
        case _:
            return left < right


def _one_says_less(first: str, second: str) -> bool:
    """Say whether one version begins with all of the other: 17 and 17.5."""
    shorter, longer = sorted((first, second), key=len)
    return longer.startswith(f"{shorter}.")


def _exact(name: str, value: str) -> str:
    """Return a value in the form that equals mean the same in."""
    if name in _VERSIONS:
        # servers add their packaging: 17.5 (Debian 17.5-1.pgdg120+1)
        found = re.search(r"[0-9][0-9A-Za-z.]*", value)
        return found[0].casefold() if found else value.casefold()
    if name in _TIMEOUTS and (duration := _DURATION.fullmatch(value.casefold())):
        return f"{int(duration[1]) * _US[duration[2] or 'ms']} us"
    return value.casefold()


def _known(value: str) -> bool:
    return _UNKNOWN.fullmatch(value.strip()) is None


# --- in words --------------------------------------------------------------------------------------------


def _sameness(fields: Sequence[FieldComparison], names: tuple[str, str], declared_by: str) -> str:
    here, there = names
    return (
        f"By the declaration of {declared_by or f'those who run {there}'}, {here} is the same as {there} in "
        f"{_listed([each.field for each in fields])}."
    )


def _paragraph(
    fields: Sequence[FieldComparison],
    matches: Match,
    evidence_class: EvidenceClass,
    names: tuple[str, str],
    undeclared: Sequence[str],
) -> str:
    here, there = names
    told = [_source(evidence_class, here, there)]
    if same := [f"{each.field} ({_short(each.here)})" for each in fields if each.verdict == "same"]:
        told.append(f"The same in both: {_listed(same)}.")
    told += [_difference(each, here, there) for each in fields if each.verdict == "differs"]
    if unknown := [_gap(each, here, there) for each in fields if each.verdict == "unknown"]:
        told.append(f"Unknown: {'; '.join(unknown)}.")
    if undeclared:
        told.append(f"Not compared, since nothing is declared of it for {there}: {_listed(undeclared)}.")
    told += _consequences(fields, matches, here, there)
    return " ".join(told)


def _source(evidence_class: EvidenceClass, here: str, there: str) -> str:
    if evidence_class is EvidenceClass.HOST:
        return f"Host-class evidence: {here} was compared with what is declared of {there}."
    return (
        f"CI-class evidence: the harness stood {here} up itself, so it can show a class of topology, and never that "
        f"it is {there}."
    )


def _difference(each: FieldComparison, here: str, there: str) -> str:
    why = FIELDS.get(each.field, "what depends on it may differ")
    return f"{each.field} is {_short(each.here)} in {here} and {_short(each.there)} in {there}: {why}."


def _gap(each: FieldComparison, here: str, there: str) -> str:
    told = [
        f"{name} has {_short(value)}" if value else f"that of {name} is not known"
        for name, value in ((here, each.here), (there, each.there))
    ]
    note = f" ({each.note})" if each.note else ""
    return f"{each.field}, where {told[0]} and {told[1]}{note}"


def _consequences(fields: Sequence[FieldComparison], matches: Match, here: str, there: str) -> list[str]:
    if matches == "no":
        decisive = [each.field for each in fields if each.verdict == "differs" and each.field in _DECISIVE]
        other = _listed(decisive)
        return [f"With another {other}, what {here} shows is no evidence of how {there} treats an audited write."]
    verdicts = {each.verdict for each in fields}
    told = []
    if "differs" in verdicts:
        told.append(f"What was shown in {here} holds in {there} only as far as it does not hang on what differs.")
    if "unknown" in verdicts:
        told.append("The evidence says nothing about what hangs on the unknown.")
    return told


def _listed(values: Sequence[str]) -> str:
    return ", ".join(values[:-1]) + " and " + values[-1] if len(values) > 1 else "".join(values)


def _short(value: str) -> str:
    line = " ".join(value.split())
    return line if len(line) <= _LONGEST_VALUE else line[: _LONGEST_VALUE - 1] + "…"
