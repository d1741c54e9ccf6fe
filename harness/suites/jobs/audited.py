"""The case `audited`: jobs whose unit of work is captured by the trail."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.audit.actor import Actor
from harness.audit.actor_convention import IdType
from harness.checks.judges.job_state import AuditedChange
from harness.checks.record import NotApplicableError
from harness.suites.actors import ATTRIBUTED_ROWS
from harness.suites.jobs.programs import ACTOR_TYPE, WORKERS

if TYPE_CHECKING:
    from harness.suites.jobs.running import JobRun


def audited(run: JobRun) -> None:
    run.use_prepared_database()
    ctx, target = run.ctx, run.ctx.target
    sql = _audited_write(run)
    run.plan(1, sql=sql)
    run.plan(2, sql=sql, failures=1)
    run.enqueue(1, 2)
    run.start_worker(WORKERS[0])
    run.wait_until_done()
    with ctx.lab.connect_admin(run.database) as admin:
        actions = target.correlations(admin)
        for change in target.changes(admin, "public.posts"):
            word, _, rest = change.text("title").partition(" ")
            key, _, job = rest.partition(" ")
            if word == "job" and key.isdecimal():
                actor = change.actor.get("id") if isinstance(change.actor, dict) else change.actor
                written = change.text("slug").partition("/")[0]
                run.changes += (
                    AuditedChange(
                        key=int(key),
                        actor=str(actor),
                        correlation=actions.get(change.action_id or "", "") if actions is not None else written,
                        job=job,
                    ),
                )


def _audited_write(run: JobRun) -> str:
    """Return the unit of work of an audited job; the database of effects fills in what the job was given."""
    target = run.ctx.target
    if lacking := next(filter(None, map(target.lacking, ATTRIBUTED_ROWS)), ""):
        raise NotApplicableError(lacking)
    if target.actor.ids is not IdType.TEXT:
        raise NotApplicableError("the actors of jobs have ids that are texts, and those of the trail are not")
    declare = f"{target.actor.declaration(Actor(ACTOR_TYPE, '%ACTOR%'))};"
    action = target.statements.record_action
    if action:
        for name, value in (("name", "'job %JOB%'"), ("correlation_id", "'%CORRELATION%'"), ("job_id", "'%JOB%'")):
            action = action.replace(f"%({name})s", value)
        action = f"{action.rstrip().rstrip(';')};"
    write = (
        "INSERT INTO public.posts (title, slug) VALUES "
        "('job %KEY% %JOB%', '%CORRELATION%/' || md5(random()::text || clock_timestamp()::text));"
    )
    return f"BEGIN; {declare} {action} {write} COMMIT;"
