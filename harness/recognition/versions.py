"""What a PgBouncer that does not say its version knows, and since when (https://www.pgbouncer.org/changelog.html)."""

from __future__ import annotations

AFTER_OPTIONS = [">= 1.20"]
BEFORE_OPTIONS = ["< 1.20"]
AFTER_TRACKING = [">= 1.21"]
#: replication as a startup parameter; an answer to a protocol version that it does not know (pull request 1007)
AFTER_NEGOTIATION = [">= 1.23"]
BEFORE_NEGOTIATION = ["< 1.23"]
AFTER_DIRECT_TLS = [">= 1.25"]
BEFORE_DIRECT_TLS = ["< 1.25"]


def narrowed(bounds: list[str]) -> str:
    """Return the narrowest of several bounds, such as ">= 1.20, < 1.23"; "" when there are none, or they disagree."""
    lower = max((_number(each) for each in bounds if each.startswith(">=")), default=None)
    upper = min((_number(each) for each in bounds if each.startswith("<")), default=None)
    if lower and upper and lower >= upper:
        return ""
    texts = [f"{sign} {bound[0]}.{bound[1]}" for sign, bound in ((">=", lower), ("<", upper)) if bound]
    return ", ".join(texts)


def _number(bound: str) -> tuple[int, int]:
    major, minor = bound.split(" ")[1].split(".")
    return int(major), int(minor)
