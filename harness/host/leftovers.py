"""Leftovers of killed runs in an environment: found by their marks, and cleared where that is safe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.audit.actor import Actor
from harness.database import SqlError, describe, quote_literal, quote_name
from harness.errors import DatabaseError, HarnessError
from harness.host.canary import MARK, SCRATCH, Canary, drop_scratch
from harness.host.job_table import ObanJobs
from harness.host.journal import Journal, Note, Write, remove
from harness.host.site import Values

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.audit.target import AuditTarget
    from harness.database import Client
    from harness.host.declarations import PathDeclaration
    from harness.host.environment import Environment

#: the actor of deletions, so that the trail can attribute them
_ACTOR = Actor("system", "pooler-harness")


def find_leftovers(
    environment: Environment,
    target: AuditTarget,
    journal: Journal,
    paths: Iterable[PathDeclaration],
    *,
    clears: bool,
) -> list[str]:
    """Find what killed runs left, clear what runs of this machine left, and return a sentence for everything found.

    Rows and tables with the marks of a run of another machine are only named: that run may be alive.

    :param paths: the declared paths, with their values filled in.
    :param clears: whether this run may write.
    """
    found = []
    for path, write in journal.abandoned():
        if not clears:
            found.append(f"a killed run left {described(write)}; a run of checks that write clears it")
            continue
        try:
            left = _clear(write, environment, target, {declared.name: declared for declared in paths})
        except (SqlError, HarnessError) as error:
            left = describe(error) if isinstance(error, SqlError) else error.what
        if left:
            found.append(f"a killed run left {described(write)}, and it could not be cleared: {left}")
        else:
            remove(path)
            found.append(f"cleared what a killed run left: {described(write, with_sql=False)}")
    return found + _of_others(environment, journal)


def described(write: Write, *, with_sql: bool = True) -> str:
    """Return the name of a leftover and, unless it is cleared, the SQL that removes it."""
    match write.kind:
        case "rows":
            text, statement = f"rows in {write.name} that begin with {write.mark}", _delete(write)
        case "table":
            text, statement = f"the table {write.name}", f"DROP TABLE IF EXISTS {quote_name(write.name)}"
            if write.grantee:
                schema = write.name.partition(".")[0]
                text += " and a grant on its schema"
                statement += f"; REVOKE USAGE ON SCHEMA {quote_name(schema)} FROM {quote_name(write.grantee)}"
        case "path":
            jobs = f" and the jobs {', '.join(map(str, write.jobs))}" if write.jobs else ""
            return f"rows of the path {write.name} that hold {write.mark}{jobs}"
    return f"{text} ({statement};)" if with_sql else text


def about(note: Note) -> str:
    """Return a sentence about a leftover, for `reap`, which has no access to the environment."""
    of, there = (f" of {note.project}", " there") if note.project else ("", " in its project")
    return (
        f"environment {note.environment}{of}: the killed run {note.owner.run_id} left {described(note.write)}; "
        f"the next `verify --environment {note.environment}`{there} clears it"
    )


def _clear(write: Write, environment: Environment, target: AuditTarget, paths: dict[str, PathDeclaration]) -> str:
    """Clear one leftover; return why it is still there, or ""."""
    match write.kind:
        case "rows":
            with environment.client() as client, client.transaction():
                _declare(client, target)
                Canary(write.name, write.column).clear(client, write.mark)
        case "table":
            drop_scratch(environment.owner, write.name, write.grantee)
        case "path":
            return _clear_path(write, environment, target, paths.get(write.name))
    return ""


def _clear_path(write: Write, environment: Environment, target: AuditTarget, declared: PathDeclaration | None) -> str:
    """Repeat the cleanup of an attempt, with the values that it had."""
    if declared is None or not (declared.cleanup or write.jobs):
        return "harness.toml declares no cleanup of this path"
    from harness.host.http_client import HttpClient  # noqa: PLC0415 -- few processes send requests

    site = environment.site(target)
    if write.jobs and declared.job:
        jobs = ObanJobs(site.application, declared.job.prefix)
        jobs.adopt(write.jobs)
        if remaining := jobs.remove_all():
            return "; ".join(remaining)
    values = Values(site.callers[0] if site.callers else None)
    for name, value in write.values.items():
        values.keep(name, value)
    with HttpClient(site) as http:
        for number, step in enumerate(declared.cleanup, 1):
            response = http.send(step, values, declared.deadline_s)
            # an attempt that was killed early created nothing, so there is nothing to remove
            if response.failure or response.status not in {step.status, 404, 410}:
                return f"step {number} of the cleanup was answered {response}"
    return ""


def _of_others(environment: Environment, journal: Journal) -> list[str]:
    """Return a sentence for each thing with our marks that is not noted on this machine."""
    declared = environment.declared
    found = []
    try:
        with environment.client() as client:
            if declared.canary:
                found = _foreign_rows(client, Canary.named(declared.canary), journal.marks("rows"))
            if declared.scratch_schema:
                found = _foreign_tables(client, declared.scratch_schema, journal.marks("table"))
    except (SqlError, DatabaseError):  # a role that may not read the canary table cannot have written to it
        return []
    return [
        f"found {described(write)}: a run on another machine uses it, or was killed; clear it once no run is active"
        for write in found
    ]


def _foreign_rows(client: Client, canary: Canary, noted: set[str]) -> list[Write]:
    column = quote_name(canary.column)
    rows = client.rows(
        f"SELECT DISTINCT substring({column} FROM %s) FROM {quote_name(canary.table)} WHERE {column} ~ %s",
        [f"^{MARK}", f"^{MARK}-"],
    )
    return [
        Write(kind="rows", name=canary.table, column=canary.column, mark=mark)
        for (mark,) in rows
        if mark and mark not in noted
    ]


def _foreign_tables(client: Client, schema: str, noted: set[str]) -> list[Write]:
    rows = client.rows(
        "SELECT relname FROM pg_catalog.pg_class "
        "WHERE relkind = 'r' AND relnamespace = to_regnamespace(%s) AND relname ~ %s",
        [quote_name(schema), f"^{SCRATCH}$"],
    )
    names = (f"{schema}.{name}" for (name,) in rows)
    return [Write(kind="table", name=name) for name in names if name not in noted]


def _delete(write: Write) -> str:
    column = quote_name(write.column)
    return f"DELETE FROM {quote_name(write.name)} WHERE starts_with({column}, {quote_literal(write.mark)})"


def _declare(client: Client, target: AuditTarget) -> None:
    if declaration := target.actor.declaration(_ACTOR, local=True):
        client.run(declaration)
