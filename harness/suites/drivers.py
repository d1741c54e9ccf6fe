"""Drivers: the same application code, by which driver and in which of its settings is it safe here?

24 clients of several processes ask for values on fewer server connections; every answer is compared with what was
asked. A driver that is not installed is Not run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.checks.documented import WORKS
from harness.checks.record import NotExercisedError
from harness.checks.server_connections import MOVING
from harness.drivers.measure import DRIVERS, Driver, NotInstalledError, measure
from harness.libpq import Reply
from harness.suites.pooling.probes import WRONG, fails, feature, works_here

if TYPE_CHECKING:
    from harness.checks.context import CheckContext
    from harness.checks.registry import Check, Control
    from harness.model import Outcome

_GROUP = "drivers"
_CLIENTS = 24


def _row(driver: Driver) -> tuple[Check, Control]:
    name = f"driver-{driver.name}"

    @feature(
        name,
        driver.title,
        suite="drivers",
        group=_GROUP,
        claim=f"{driver.title}: {_CLIENTS} clients at once get their own values, and no error",
        # it takes both cores of a small machine, and is to be compared with the other drivers
        serial_group=name,
    )
    def probe(ctx: CheckContext) -> Outcome:
        endpoint = ctx.lab.chain(ctx.database)
        if ctx.sabotaged and works_here(ctx, name):
            ctx.admin.run(f"REVOKE CONNECT ON DATABASE {ctx.database} FROM PUBLIC")
        elif ctx.sabotaged:
            endpoint = ctx.lab.direct(ctx.database)
        try:
            measured = measure(driver, endpoint, clients=_CLIENTS)
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
        if ctx.mode in MOVING and not measured.errors and measured.server_pids >= _CLIENTS and not ctx.sabotaged:
            raise NotExercisedError(
                f"{_CLIENTS} clients had {measured.server_pids} server connections: none was shared"
            )
        if measured.wrong:
            return WRONG
        if measured.errors:
            return fails(Reply(sqlstate=next(iter(measured.errors))))
        return WORKS

    return probe


ROWS = tuple(each for driver in DRIVERS for each in _row(driver))
