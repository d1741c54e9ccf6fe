"""Drivers: with which drivers, and with which of their settings, the same application code is safe here.

24 clients in several processes query values on fewer server connections, and every answer is compared with the
expected value. A driver that is not installed gives Not run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.checks.documented import WORKS
from harness.checks.occupation import MOVING, busy, pid_of, require_clients
from harness.checks.record import NotExercisedError
from harness.drivers.measure import DRIVERS, Driver, NotInstalledError, measure
from harness.libpq import Reply
from harness.suites.pooling.probes import WRONG, fails, probe, works_here

if TYPE_CHECKING:
    from harness.checks.context import CheckContext
    from harness.checks.registry import Check, Control
    from harness.model import Outcome

_GROUP = "drivers"
_CLIENTS = 24


def _row(driver: Driver) -> tuple[Check, Control]:
    name = f"driver-{driver.name}"

    @probe(
        name,
        driver.title,
        suite="drivers",
        group=_GROUP,
        claim=f"{driver.title}: {_CLIENTS} concurrent clients get their own values and no error",
        # a driver occupies both cores of a small machine, and its numbers are compared with those of the others
        serial_group=name,
    )
    def workload(ctx: CheckContext) -> Outcome:
        require_clients(ctx, _CLIENTS)
        endpoint = ctx.lab.chain(ctx.database)
        if ctx.sabotaged and works_here(ctx, name):
            ctx.admin.run(f"REVOKE CONNECT ON DATABASE {ctx.database} FROM PUBLIC")
        elif ctx.sabotaged:
            endpoint = ctx.lab.direct(ctx.database)
        elif ctx.mode in MOVING:
            _open_two(ctx)
        try:
            measured = measure(
                driver,
                endpoint,
                clients=_CLIENTS,
                require_undisturbed=ctx.require_undisturbed,
                workers=ctx.driver_workers,
            )
        except NotInstalledError as error:
            raise NotExercisedError(error.what) from None
        ctx.fact("settings", driver.settings)
        ctx.fact("versions", measured.versions)
        ctx.fact("queries", measured.queries)
        ctx.fact("errors", measured.errors)
        ctx.fact("wrong results", measured.wrong)
        ctx.fact("server connections", measured.server_pids)
        ctx.fact("seconds", round(measured.duration_s, 2))
        for number, example in enumerate(measured.examples, 1):
            ctx.fact(f"example {number}", example)
        if ctx.mode in MOVING and not ctx.sabotaged and measured.clean and not 1 < measured.server_pids < _CLIENTS:
            raise NotExercisedError(
                f"{_CLIENTS} clients used {measured.server_pids} server connections, so none was shared or no client "
                "changed its own"
            )
        if measured.wrong:
            return WRONG
        if measured.errors:
            return fails(Reply(sqlstate=next(iter(measured.errors))))
        return WORKS

    return workload


def _open_two(ctx: CheckContext) -> None:
    """Open two server connections. While a slow server starts the second, the first could serve all queries alone."""
    with ctx.plain_client() as client, busy(ctx, client, pid_of(client)):
        pid_of(client)


ROWS = tuple(declared for driver in DRIVERS for declared in _row(driver))
