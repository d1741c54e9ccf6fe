"""The conclusions from all probes: product, version, poolers in a row, and missing security fixes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.recognition.security import security_fixes
from harness.recognition.versions import TRACKING
from harness.versions import numbers_of

if TYPE_CHECKING:
    from harness.recognition.findings import Findings
    from harness.recognition.signs import Signs
    from harness.recognition.versions import Versions

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
    _add_security_fixes(findings)


def _add_poolers(reasons: list[tuple[str, bool]], findings: Findings) -> None:
    """Add how many poolers are in a row."""
    for reason, is_certain in reasons:
        (findings.certain if is_certain else findings.likely)("poolers", "at least 2", reason)
    values = {"no": "none", "yes": "at least 1"}
    if not reasons and (value := values.get(findings.value("pooler"))):
        add = findings.certain if findings.is_certain("pooler") else findings.likely
        add("poolers", value, findings.how("pooler"))


def _add_security_fixes(findings: Findings) -> None:
    """Add whether the version lies below a published fix. A fix may be backported without a new version number."""
    fact, table = "security_fixes", security_fixes()
    product, version = findings.value("product"), findings.value("version")
    if not table.knows(product):
        findings.unknown(fact, f"the table of {table.as_of} has no fixes of {product or 'an unknown product'}")
        return
    if not findings.is_certain("version") or not numbers_of(version):
        findings.unknown(fact, f"the exact version is unknown; the table of {table.as_of} has fixes of {product}")
        return
    missing = table.above(product, version)
    if not missing:
        findings.certain(fact, "none", f"{product} {version} has every fix in the table of {table.as_of}")
        return
    newest = max((row.fixed_in for row in missing), key=numbers_of)
    names = ", ".join(row.id for row in missing[:_LONGEST_LIST])
    more = f" and {len(missing) - _LONGEST_LIST} more" if len(missing) > _LONGEST_LIST else ""
    number = "1 published security fix" if len(missing) == 1 else f"{len(missing)} published security fixes"
    how = f"{product} {version} is older than {number}: {names}{more} ({table.as_of}, {missing[0].source})"
    if maintainer := table.maintainer(product, version):
        how += (
            f"; {maintainer.by} maintains this version, and its package may have backported fixes: {maintainer.source}"
        )
    findings.likely(fact, f"missing before {newest}", how)
