"""The checks of the suite: five for each `[[migrations]]` of `harness.toml`, and their controls."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from harness.checks.registry import P1, TRANSACTION_BLOCKS, Capability, Control, check
from harness.host.declarations import MigrationCase as Case
from harness.model import Section
from harness.suites.command_roles import leaves_nothing
from harness.suites.migrations import shipped
from harness.suites.migrations.cases import CASES, CONTROLLED
from harness.suites.migrations.running import MigrationRun, StepFailedError, left_over

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from harness.checks.context import CheckContext
    from harness.checks.registry import Check
    from harness.host.declarations import MigrationDeclaration

#: what is true when a case is OK; the title of the migrations goes before it
CLAIMS: dict[Case, str] = {
    Case.TWICE: "a second run succeeds and leaves the schema as it is",
    Case.SAME_SCHEMA: "the local command gives the same schema",
    Case.DOWN_UP: "the way back and forward again gives the same schema",
    Case.CONCURRENT: "two runs at a time leave the schema of one, and a third run changes nothing",
    Case.STARTS: "the start of the application leaves the schema to the migrations",
}
#: how many commands a case runs, one after another
_COMMANDS = {Case.TWICE: 2, Case.SAME_SCHEMA: 2, Case.DOWN_UP: 3, Case.CONCURRENT: 4, Case.STARTS: 3}
#: the key of the command without which a case is N/A, and what it is
_NEEDS = {
    Case.SAME_SCHEMA: ("local", "another way to the schema"),
    Case.DOWN_UP: ("down", "a way back"),
    Case.STARTS: ("starts", "a start of its application"),
}
#: names of the controls, which are part of command lines
_CONTROLS = {
    Case.TWICE: "a-second-run-that-changes-the-schema",
    Case.SAME_SCHEMA: "a-local-command-that-differs",
    Case.DOWN_UP: "a-way-back-that-forgets-a-table",
    Case.CONCURRENT: "two-runs-that-leave-another-schema",
    Case.STARTS: "a-start-that-creates-a-table",
}
#: for databases, catalogues and locks, in addition to the deadlines of the commands, seconds
_MARGIN_S = 90.0


#: returns a declaration whose commands can run here
_Prepare = Callable[["CheckContext"], "MigrationDeclaration"]


def shipped_checks() -> Iterator[Check | Control]:
    """Yield the checks of the migrations that ship with the harness; they run when they are named."""
    yield from migration_checks([shipped.MIGRATIONS], shipped.installed)


def migration_checks(
    declared: Iterable[MigrationDeclaration], prepare: _Prepare | None = None
) -> Iterator[Check | Control]:
    """Yield the checks of migrations, each with its control.

    :param prepare: prepares the commands of shipped migrations; a run that names nothing leaves them out.
    """
    for migrations in declared:
        for case in Case:
            row = _row(migrations, case, prepare)
            yield row
            expectation, step = CONTROLLED[case]
            yield Control(
                name=_CONTROLS[case],
                check=row.id,
                at=expectation,
                needs=row.needs,
                apply=partial(_interfere_after, step, (*migrations.schemas, "public")[0]),
            )


def _row(migrations: MigrationDeclaration, case: Case, prepare: _Prepare | None) -> Check:
    identity = f"migrations.{migrations.name}-{case}"
    return check(
        identity,
        claim=f"{migrations.title.rstrip('.')}: {CLAIMS[case]}",
        section=Section.MIGRATIONS,
        severity=P1,
        area="migrations",
        needs=(*_undeclared(migrations, case), TRANSACTION_BLOCKS),
        # one after another: what a command leaves on the server is removed after it
        serial_group=identity,
        on_demand=prepare is not None,
        longest_s=_COMMANDS[case] * migrations.deadline_s + _MARGIN_S,
    )(partial(run_case, migrations, case, prepare))


def _undeclared(migrations: MigrationDeclaration, case: Case) -> tuple[Capability, ...]:
    """Return a capability that no topology has, if the project does not declare the command of a case."""
    key, what = _NEEDS.get(case, ("up", ""))
    if getattr(migrations, key):
        return ()
    return (Capability(what, f"the project declares no command for {key}: {what}", lambda _topology: False),)


def run_case(migrations: MigrationDeclaration, case: Case, prepare: _Prepare | None, ctx: CheckContext) -> None:
    """Run one case in databases of its own."""
    run = MigrationRun(ctx, prepare(ctx) if prepare else migrations)
    with leaves_nothing(ctx, run.databases):
        try:
            CASES[case](run)
        except StepFailedError:
            return  # its expectation is broken
        finally:
            run.keep_output()


def _interfere_after(step: str, schema: str, ctx: CheckContext) -> None:
    ctx.schema_sql[step] = left_over(schema)
