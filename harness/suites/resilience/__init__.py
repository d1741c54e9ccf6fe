"""Resilience: acknowledged work survives faults."""

from harness.suites.resilience import jobs

MODULES = (jobs,)
