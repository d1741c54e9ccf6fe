"""Checks that changes are recorded completely, in order, and for every way of writing."""

from harness.suites.capture import (
    basics,
    covering,
    extremes,
    forging,
    installing,
    rows,
    sequences,
    shadowing,
    structure,
    transactions,
    values,
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
    rows,
    values,
    shadowing,
    forging,
    covering,
    installing,
    values,
    extremes,
)
