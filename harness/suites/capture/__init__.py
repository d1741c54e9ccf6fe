"""Checks that changes are recorded completely, in order, and for every way of writing."""

from harness.suites.capture import (
    basics,
    burdens,
    concurrency,
    covering,
    extremes,
    failures,
    forging,
    installing,
    operations,
    rows,
    sequences,
    shadowing,
    structure,
    times,
    transactions,
    values,
    writes,
)

#: in the report's order
MODULES = (
    basics,
    writes,
    sequences,
    structure,
    transactions,
    times,
    concurrency,
    rows,
    values,
    extremes,
    shadowing,
    forging,
    covering,
    installing,
    operations,
    burdens,
    failures,
)
