"""Whether changes are recorded: whole, in order, and by every way of writing."""

from harness.suites.capture import basics, evasion, failures, operations, rows, transactions

#: in the order of the report
MODULES = (basics, transactions, rows, evasion, operations, failures)
