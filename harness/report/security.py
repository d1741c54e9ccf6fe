"""The published security fixes that the pooler of a chain lacks, in one sentence for its verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.model import Confidence
from harness.recognition.security import security_fixes
from harness.versions import numbers_of

if TYPE_CHECKING:
    from harness.model import EnvironmentEvidence

#: such as 1.24.1: a fix is in a patch release
_EXACT = 3


def missing_from_pooler(product: str, version: str) -> str:
    """Return the fixes that an exact version of a product lacks, without a full stop; "" if it lacks none.

    A product without a table of fixes lacks none that is known: its row says so.
    """
    table = security_fixes()
    missing = table.above(product, version) if len(numbers_of(version)) >= _EXACT else ()
    if not missing:
        return ""
    newest = max((fix.fixed_in for fix in missing), key=numbers_of)
    number = "1 published security fix" if len(missing) == 1 else f"{len(missing)} published security fixes"
    maintainer = table.maintainer(product, version)
    unless = f", unless {maintainer.by} has backported them" if maintainer else ""
    return f"{product} {version} lacks {number} up to {newest} (as of {table.as_of}){unless}"


def missing_from_environment(found: EnvironmentEvidence) -> str:
    """Return the fixes that the pooler of an environment lacks, as far as its version was recognised."""
    certain = {finding.fact: finding.value for finding in found.findings if finding.confidence is Confidence.CERTAIN}
    if len(numbers_of(certain.get("version", ""))) >= _EXACT:
        return missing_from_pooler(certain.get("product", ""), certain["version"])
    finding = found.found("security_fixes")
    if finding is None or finding.value == "none":
        return ""
    return f"the pooler likely lacks published security fixes: {finding.value}"
