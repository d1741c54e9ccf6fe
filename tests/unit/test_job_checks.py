"""Which checks a job engine has: those that each of its variants claims."""

from __future__ import annotations

import pytest

from harness.checks.registry import Check
from harness.job_engines.loading import shipped
from harness.suites.jobs.rows import job_checks


@pytest.mark.parametrize(("variant", "leases"), [("default", set()), ("pooler", {"claims", "heartbeat"})])
def test_a_variant_without_a_lease_has_no_check_of_leases(variant: str, leases: set[str]) -> None:
    """Nothing takes a job over from a dead worker by default in procrastinate, so nothing would be exercised."""
    engines = [engine for engine in shipped() if engine.name == "procrastinate"]
    ids = {check.id for check in job_checks(engines) if isinstance(check, Check)}
    prefix = f"jobs.procrastinate-{variant}-"
    cases = {name.removeprefix(prefix) for name in ids if name.startswith(prefix)}
    assert cases & {"claims", "heartbeat"} == leases
    assert {"works", "retries", "cancel", "cron"} < cases
