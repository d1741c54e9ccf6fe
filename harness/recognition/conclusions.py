"""The conclusions from all probes: product, version, poolers in a row, and missing security fixes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.recognition.security import security_fixes
from harness.recognition.versions import TRACKING
from harness.versions import exactly, numbers_of

if TYPE_CHECKING:
    from harness.recognition.findings import Findings
    from harness.recognition.security import SecurityFix
    from harness.recognition.signs import Signs
    from harness.recognition.versions import Versions
    from harness.versions import Range

_LONGEST_LIST = 4


def add_conclusions(signs: Signs, versions: Versions, in_a_row: list[tuple[str, bool]], findings: Findings) -> None:
    """Add the findings that follow from several probes.

    :param in_a_row: the observations that need two poolers in a row; for each, whether it is certain.
    """
    signs.add_findings(findings)
    reasons = list(in_a_row)
    if "PgBouncer" in signs.products:
        if findings.value("prepared_statements") == "tracked":
            versions.has(TRACKING)
        reasons += versions.add_findings(findings)
    if len(signs.products) > 1:
        both = "; ".join(f"{product}: {signs.how(product)}" for product in signs.products)
        reasons.append((both, all(signs.is_certain(product) for product in signs.products)))
    reasons += versions.add_pool_mode(findings, is_alone=not reasons)
    _add_poolers(reasons, findings)
    if findings.value("pooler") == "yes" and not findings.value("product"):
        findings.likely("product", "unknown pooler", "no sign of a known product was observed")
    _add_security_fixes(findings, versions.range)


def _add_poolers(reasons: list[tuple[str, bool]], findings: Findings) -> None:
    """Add how many poolers are in a row."""
    for reason, is_certain in reasons:
        (findings.certain if is_certain else findings.likely)("poolers", "at least 2", reason)
    values = {"no": "none", "yes": "at least 1"}
    if not reasons and (value := values.get(findings.value("pooler"))):
        add = findings.certain if findings.is_certain("pooler") else findings.likely
        how = findings.how("pooler")
        if value != "none":
            how += f"; a second {findings.value('product') or 'pooler'} with the same features would look the same"
        add("poolers", value, how)


def _add_security_fixes(findings: Findings, narrowed: Range) -> None:
    """Add whether the version lies below a published fix. A fix may be backported without a new version number.

    :param narrowed: the versions that the pooler may have, if it does not show the exact one.
    """
    fact, table = "security_fixes", security_fixes()
    product, version = findings.value("product"), findings.value("version")
    if not table.knows(product):
        findings.unknown(fact, f"the table of {table.as_of} has no fixes of {product or 'an unknown product'}")
        return
    is_exact = findings.is_certain("version") and bool(numbers_of(version))
    versions = exactly(version) if is_exact else narrowed
    name = f"{product} {version}" if is_exact else f"every {product} {version}"
    missing, undecided = table.missing(product, versions)
    if missing:
        newest = max((row.fixed_in for row in missing), key=numbers_of)
        number = "1 published security fix" if len(missing) == 1 else f"{len(missing)} published security fixes"
        how = f"{name} is older than {number}: {_named(missing)} ({table.as_of}, {missing[0].source})"
        if undecided:
            how += f"; whether it is older than those of {_named(undecided)} depends on the exact version"
        for row in table.maintainers(product, versions):
            how += f"; {row.by} maintains {row.version}, and its package may have backported fixes: {row.source}"
        findings.likely(fact, f"missing before {newest}", how)
    elif undecided:
        how = f"the exact version decides, and it is unknown{f': {version}' if version else ''}"
        findings.unknown(fact, f"{how}; fixes of {_named(undecided)} ({table.as_of}, {undecided[0].source})")
    else:
        add = findings.certain if is_exact else findings.likely
        add(fact, "none", f"{name} has every fix in the table of {table.as_of}")


def _named(fixes: tuple[SecurityFix, ...]) -> str:
    names = ", ".join(row.id for row in fixes[:_LONGEST_LIST])
    return f"{names} and {len(fixes) - _LONGEST_LIST} more" if len(fixes) > _LONGEST_LIST else names
