"""Checks that changes are recorded completely, in order, and for every way of writing."""

from harness.suites.capture import basics, evasion, failures, operations, rows, transactions, writes

#: in the report's order
MODULES = (basics, writes, transactions, rows, evasion, operations, failures)
