"""Compare two environments field by field, and say what the result means for evidence about production.

`yes` is the strongest word of the STG-01 table. It requires equality of everything that is declared of production and
of everything that decides how a pooler treats an audited write.
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

#: the fields that are compared, most serious first, each with the consequence of a difference
FIELDS: dict[str, str] = {
    "chain": "a write passes through other servers",
    "pooler": "session state may survive between transactions in one and not in the other",
    "product": "poolers differ in the session state that they keep and reset",
    "pool_mode": "the mode decides which session state a client leaves to the next one on a server connection",
    "prepared_statements": "repeated statements are treated differently",
    "max_prepared_statements": "repeated statements may be tracked in one and fail in the other",
    "prepare": "the client sends repeated statements differently",
    "pool_size": "clients share server connections more often in one than in the other",
    "version": "releases of a pooler differ in what they reset and track",
    "server_version": "releases of PostgreSQL differ in what triggers and functions do",
    "session_replication_role": "it decides whether capture triggers fire at all",
    "synchronous_commit": "it decides which commits a crash may remove from the trail",
    "default_transaction_isolation": "concurrent writes see different rows",
    "max_prepared_transactions": "two-phase commits are possible in one and refused in the other",
    "idle_in_transaction_session_timeout": "the server ends an idle transaction at another time",
    "statement_timeout": "the server cancels a long write at another time",
    "TimeZone": "times that are written as text differ",
}

#: with a difference in one of these, evidence does not apply to production at all
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
#: other values that are not exact: `~> 1.24`, `^1`, `about 20`, `1.24.x`, `1.24+`, `17 or later`
_LOOSE = re.compile(
    r"(?:~|\^|>|<|=|about\b|around\b).*|[0-9][0-9.]*(?:\.[x*]|\+|\s+or (?:later|newer|more))", re.IGNORECASE
)
_NUMBERS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})*")
_DURATION = re.compile(r"([0-9]{1,12})\s*(us|ms|s|min|h|d)?")
_US = {"us": 1, "ms": 1000, "s": 1_000_000, "min": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
_LONGEST_VALUE = 120


class FieldComparison(Struct, frozen=True, kw_only=True):
    """One field in both environments; an unknown value is ""."""

    field: str
    here: str
    there: str
    verdict: Sameness
    #: why the verdict is unknown although both values are known
    note: str = ""
    #: a value that is likely here, and so was not compared
    likely: str = ""

    @property
    def found(self) -> str:
        """The value here in words: a likely one is neither certain nor unknown."""
        return self.here or (f"likely {_short(self.likely)}" if self.likely else "unknown")


class Comparison(Struct, frozen=True, kw_only=True):
    """Every field that was compared, most serious first, and the result."""

    fields: tuple[FieldComparison, ...]
    matches: Match
    #: the reasons, in plain sentences; it holds values from outside, so it must be escaped when it is printed
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
    likely: Mapping[str, str] | None = None,
) -> Comparison:
    """Compare an environment with the declaration of production.

    Both arguments map names of :data:`FIELDS`, or of other settings, to values. If one of them has no `chain`, both get
    one from their `pooler` (yes or no). A field that only `here` has is compared if a match needs it; otherwise it is
    listed as undeclared.

    The result is `no` if chain, pooler, product or pool mode differ. It is `yes` for host-class evidence if all
    compared fields are known in both environments and the same. The compared fields include at least chain and server
    version and, if there is a pooler, its product, mode, pool size and prepared statements. Every other result is
    `partial`, and CI-class evidence never gets more.

    :param names: what the paragraph calls the two environments.
    :param declared_by: the source of the values of production; its operators if empty.
    :param likely: values of the environment that are likely: they are named and not compared.
    """
    likely = likely or {}
    here, production = _with_chains(here, production)
    needed = {*_ALWAYS_NEEDED, *(() if _no_pooler(here) and _no_pooler(production) else _NEEDED_WITH_POOLER)}
    chosen = needed | set(production)
    order = [*(name for name in FIELDS if name in chosen), *sorted(chosen - set(FIELDS))]
    fields = tuple(
        _compare_field(name, here.get(name, ""), production.get(name, ""), likely.get(name, "")) for name in order
    )
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
    """Return both sides with comparable chains: their own, or both derived from `pooler`."""
    sides = (dict(here), dict(there))
    chains = {"yes": "with a pooler", "no": "direct"}
    derived = [chains.get(side.get("pooler", "").strip().lower(), "") for side in sides]
    if not all(_known(side.get("chain", "")) for side in sides) and all(derived):
        for side, chain in zip(sides, derived, strict=True):
            side["chain"] = chain
    return sides


def _no_pooler(side: Mapping[str, str]) -> bool:
    return any(" ".join(side.get(name, "").split()).casefold() in words for name, words in _NO_POOLER.items())


def _matches(fields: Sequence[FieldComparison], evidence_class: EvidenceClass) -> Match:
    if any(compared.verdict == "differs" and compared.field in _DECISIVE for compared in fields):
        return "no"
    if evidence_class is EvidenceClass.HOST and all(compared.verdict == "same" for compared in fields):
        return "yes"
    return "partial"


def _compare_field(name: str, here: str, there: str, likely: str) -> FieldComparison:
    verdict, note = _judge(name, here, there)
    return FieldComparison(
        field=name,
        here=here.strip() if _known(here) else "",
        there=there.strip() if _known(there) else "",
        verdict=verdict,
        note=note,
        likely="" if _known(here) else likely,
    )


def _judge(name: str, here: str, there: str) -> tuple[Sameness, str]:
    if not _known(here) or not _known(there):
        return "unknown", ""
    values = (" ".join(here.split()), " ".join(there.split()))
    loose = [value for value in values if _BOUNDS.fullmatch(value) or _LOOSE.fullmatch(value)]
    if len(loose) == len(values):
        return "unknown", "neither value is exact"
    if loose:
        exact = values[0] if loose[0] == values[1] else values[1]
        return _against_bound(loose[0], exact)
    first, second = (_exact(name, value) for value in values)
    if first == second:
        return "same", ""
    if name in _VERSIONS and _is_prefix(first, second):
        return "unknown", "likely compatible: one of the versions is less exact"
    return "differs", ""


def _against_bound(bound: str, exact: str) -> tuple[Sameness, str]:
    """Compare a bound with an exact value. They are never the same, but the bound may rule the value out."""
    number = _NUMBERS.search(exact)
    if not _BOUNDS.fullmatch(bound) or number is None:
        return "unknown", f"{_short(bound)} is not an exact value"
    if all(_satisfies(number[0], sign.lower(), limit) for sign, limit in _BOUND.findall(bound)):
        return "unknown", f"likely compatible: {_short(bound)} includes {number[0]}"
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


def _is_prefix(first: str, second: str) -> bool:
    """Return whether one version begins with all parts of the other, such as 17 and 17.5."""
    shorter, longer = sorted((first, second), key=len)
    return longer.startswith(f"{shorter}.")


def _exact(name: str, value: str) -> str:
    """Return a value in a form in which equal values are spelled the same."""
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
    same = _listed([compared.field for compared in fields])
    return f"According to {declared_by or f'the operators of {there}'}, {here} has the same {same} as {there}."


def _paragraph(
    fields: Sequence[FieldComparison],
    matches: Match,
    evidence_class: EvidenceClass,
    names: tuple[str, str],
    undeclared: Sequence[str],
) -> str:
    here, there = names
    sentences = [_source(evidence_class, here, there)]
    if same := [f"{compared.field} ({_short(compared.here)})" for compared in fields if compared.verdict == "same"]:
        sentences.append(f"The same in both: {_listed(same)}.")
    sentences += [_difference(compared, here, there) for compared in fields if compared.verdict == "differs"]
    if unknown := [_gap(compared, here, there) for compared in fields if compared.verdict == "unknown"]:
        sentences.append(f"Unknown: {'; '.join(unknown)}.")
    if undeclared:
        sentences.append(f"Not compared, because {there} declares no value: {_listed(undeclared)}.")
    return " ".join(sentences + _consequences(fields, matches, here, there))


def _source(evidence_class: EvidenceClass, here: str, there: str) -> str:
    if evidence_class is EvidenceClass.HOST:
        return f"Host-class evidence: {here} was compared with what is declared of {there}."
    return (
        f"CI-class evidence: the harness started {here} itself, so it can show a class of topology, but never that "
        f"{here} is {there}."
    )


def _difference(compared: FieldComparison, here: str, there: str) -> str:
    consequence = FIELDS.get(compared.field, "behaviour that depends on it may differ")
    values = f"{_short(compared.here)} in {here} and {_short(compared.there)} in {there}"
    return f"{compared.field} is {values}: {consequence}."


def _gap(compared: FieldComparison, here: str, there: str) -> str:
    values = f"{here}: {_short(compared.found)}, {there}: {_short(compared.there) or 'unknown'}"
    note = f"; {compared.note}" if compared.note else ""
    return f"{compared.field} ({values}{note})"


def _consequences(fields: Sequence[FieldComparison], matches: Match, here: str, there: str) -> list[str]:
    if matches == "no":
        differing = [compared.field for compared in fields if compared.verdict == "differs"]
        decisive = [field for field in differing if field in _DECISIVE]
        differ = f"{_listed(decisive)} {'differ' if len(decisive) > 1 else 'differs'}"
        return [f"Because {differ}, evidence from {here} does not show how {there} treats an audited write."]
    verdicts = {compared.verdict for compared in fields}
    sentences = []
    if "differs" in verdicts:
        sentences.append(f"Evidence from {here} applies to {there} only where it does not depend on a difference.")
    if "unknown" in verdicts:
        sentences.append("The evidence does not cover behaviour that depends on an unknown value.")
    return sentences


def _listed(values: Sequence[str]) -> str:
    return ", ".join(values[:-1]) + " and " + values[-1] if len(values) > 1 else "".join(values)


def _short(value: str) -> str:
    line = " ".join(value.split())
    return line if len(line) <= _LONGEST_VALUE else line[: _LONGEST_VALUE - 1] + "…"
