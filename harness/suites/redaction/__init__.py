"""Checks of what redaction keeps out of the trail, and of its rules."""

from harness.suites.redaction import mistakes, rules, values

#: in the report's order
MODULES = (values, rules, mistakes)
