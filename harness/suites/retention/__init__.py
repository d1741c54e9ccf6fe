"""Retention: a purge deletes all expired changes and nothing else, in batches that do not block writers."""

from harness.suites.retention import expired, purges

#: in the report's order
MODULES = (expired, purges)
