"""Bounds of PgBouncer's version, from the features it supports (https://www.pgbouncer.org/changelog.html)."""

from __future__ import annotations

AFTER_OPTIONS = [">= 1.20"]
BEFORE_OPTIONS = ["< 1.20"]
AFTER_TRACKING = [">= 1.21"]
#: replication as a startup parameter; negotiation of an unknown protocol version (pull request 1007)
AFTER_NEGOTIATION = [">= 1.23"]
BEFORE_NEGOTIATION = ["< 1.23"]
AFTER_DIRECT_TLS = [">= 1.25"]
BEFORE_DIRECT_TLS = ["< 1.25"]


def narrowed(bounds: list[str]) -> str:
    """Return the range within all bounds, such as ">= 1.20, < 1.23"; "" without bounds, or if they conflict."""
    lower = max((_number(bound) for bound in bounds if bound.startswith(">=")), default=None)
    upper = min((_number(bound) for bound in bounds if bound.startswith("<")), default=None)
    if lower and upper and lower >= upper:
        return ""
    texts = [f"{sign} {number[0]}.{number[1]}" for sign, number in ((">=", lower), ("<", upper)) if number]
    return ", ".join(texts)


def _number(bound: str) -> tuple[int, int]:
    major, minor = bound.split(" ")[1].split(".")
    return int(major), int(minor)
