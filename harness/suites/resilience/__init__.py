"""Resilience: acknowledged work survives faults."""

from harness.suites.resilience import controls, jobs, writes

MODULES = (writes, controls, jobs)
