"""Checks that changes are recorded completely, in order, and for every way of writing."""

from harness.suites.capture import (
    basics,
    concurrency,
    covering,
    failures,
    forging,
    installing,
    operations,
    rows,
    shadowing,
    transactions,
    values,
    writes,
)

#: in the report's order
MODULES = (
    basics,
    writes,
    transactions,
    concurrency,
    rows,
    values,
    shadowing,
    forging,
    covering,
    installing,
    operations,
    failures,
)
