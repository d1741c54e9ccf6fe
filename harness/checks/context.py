"""The context of one check: its clients, its history, its work as an application, and the trail."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from harness.audit.target_file import Recorded
from harness.checks.application import Application
from harness.checks.deliberate_breaks import CheckBreaks
from harness.checks.judges import REPLACED_JUDGE
from harness.checks.outcomes import CheckOutcomes
from harness.database import Client, SqlError, connect, describe
from harness.events import CheckProgress
from harness.host.canary import Canary, scratch_canary
from harness.lab.recognised import declared_facts
from harness.store import read_history, read_state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from threading import Event

    from harness.audit.actor import Actor
    from harness.audit.target import AuditTarget, Change
    from harness.audit.target_file import TrailFeature
    from harness.checks.clients import DatabaseSource
    from harness.checks.judges import Judge
    from harness.checks.load import LoadSettings
    from harness.drivers.worker import Workers
    from harness.events import Event as Notification
    from harness.host.site import Site
    from harness.lab.host import HostService
    from harness.lab.lab import Lab
    from harness.model import Finding
    from harness.store import Journal


class CheckContext(CheckBreaks, CheckOutcomes):
    """The context of one check. It closes everything that the check opened."""

    def __init__(self, lab: Lab, target: AuditTarget, database: str, workspace: DatabaseSource) -> None:
        super().__init__(lab, target, database, workspace)
        self.application = Application(target.actor)

    @property
    def site(self) -> Site:
        """The reference host application. All checks of paths share it and its database.

        :raises NotExercisedError: when it cannot run here.
        """
        return self._workspace.site()

    @property
    def host_service(self) -> HostService:
        """The service of the reference host, for checks that end it.

        :raises NotExercisedError: when it cannot run here.
        """
        return self._workspace.host_service()

    @property
    def audited_tables(self) -> tuple[str, ...]:
        """The fixture tables that must be captured: capture could be attached, and their names need no quotes."""
        return tuple(name for name, state in self.attached.items() if state == "done" and '"' not in name)

    def recognised(self) -> tuple[tuple[Finding, ...], dict[str, str]]:
        """Return the findings of a client that knew only the addresses, and the declared facts by name."""
        return self._lab.evidence.findings, declared_facts(self.topology, self._lab.evidence) | self.declared

    @property
    def load(self) -> LoadSettings:
        """How long and how often checks under load or faults run."""
        return self._workspace.load

    @property
    def driver_workers(self) -> Workers | None:
        """The processes of the run that load drivers; None outside a run."""
        return self._workspace.driver_workers

    def record_servers(self) -> None:
        """Record what decides which commits a crash may remove, as a new session of the application has it."""
        with connect(self._lab.direct(self.database), application_name="pooler-harness check") as client:
            [(version, fsync, commit)] = client.rows(
                "SELECT current_setting('server_version'), current_setting('fsync'), "
                "current_setting('synchronous_commit')"
            )
        place = self._lab.evidence.storage.partition(",")[0]
        self.fact("servers", f"own, data {place}, fsync {fsync}, synchronous_commit {commit}, PostgreSQL {version}")

    @contextlib.contextmanager
    def ending_in_order(self) -> Iterator[Event]:
        """Keep the servers up within the block when the run is interrupted: the check ends its load, and judges it.

        What it has seen by then still counts. The check is Not run, since it did not last as long as it should have.

        :return: the event that is set by an interruption. The block has to end soon after it.
        """
        with self._lab.under_load:
            self._ends_in_order = True
            try:
                yield self._interrupted
            finally:
                self._ends_in_order = False

    @contextlib.contextmanager
    def history(self, judge: Judge, **facts: str) -> Iterator[Journal]:
        """Record a history, and judge it once the block ends without an error.

        The block writes the final state with `keep_state`. What the judge sees is read back from disk, so that
        `harness judge` sees the same later.

        :param facts: what a reader has to know about the load.
        """
        own, judge = judge, self.judged_by(judge)
        if judge is not own:
            facts[REPLACED_JUDGE] = "yes"
        journal = self._workspace.journal(self, judge.name, facts)
        try:
            yield journal
        finally:
            journal.close()
        for expectation in judge.judge(read_history(journal.path), read_state(journal.path, judge.state)):
            self.add(expectation)

    def progress(self, done: float, of: float, what: str) -> None:
        """Show how far the check is, if it lasts: a person who waits sees that it does not hang.

        :param done: in any unit, such as faults or seconds; 0 at the start.
        :param of: the same at the end.
        :param what: what is being done, such as the name of a fault, or `seconds of load`.
        """
        under = f"{self.control}: " if self.control else ""
        self._workspace.notify(CheckProgress(self.topology.name, self.check, done, of, f"{under}{what}"))

    def notify(self, event: Notification) -> None:
        """Report an event to whoever shows the run, such as a preparation that takes long."""
        self._workspace.notify(event)

    @contextlib.contextmanager
    def canary(self) -> Iterator[Canary]:
        """Return a captured table that is made for the check, and removed with it."""
        role = self._lab.roles.app.name
        with scratch_canary(self.another_owner, self.target, "public", role, self.left_behind) as canary:
            if not self.canary_captured:
                self.disable_capture(canary.table)
            yield canary

    @property
    def attached(self) -> dict[str, str]:
        """The fixture tables by name: `done` when capture is attached, else the error."""
        return self._workspace.attached

    def claims(self, feature: TrailFeature) -> bool:
        """Return whether the audit target claims a feature."""
        return feature in self.target.claims

    # --- the application's work -------------------------------------------------------------------

    def audited(
        self, client: Client, actor: Actor | None, *, first: str = ""
    ) -> contextlib.AbstractContextManager[Client]:
        """Open one audited unit of work, with the habits of the application under test.

        :param first: a statement that begins the transaction.
        """
        return self.application.audited(client, actor, first=first)

    def insert_post(self, client: Client, slug: str) -> None:
        """Insert a row into the captured table `posts`; the caller decides about the transaction."""
        client.run("INSERT INTO public.posts (slug, title) VALUES (%s, 'a title')", [slug])
        if not self.records(Recorded.INSERTS):  # the change to look at is then an update
            client.run("UPDATE public.posts SET views = views + 1 WHERE slug = %s", [slug])

    def write(self, client: Client, actor: Actor | None, slug: str) -> None:
        """Insert a post in one audited unit of work, and commit."""
        with self.audited(client, actor):
            self.insert_post(client, slug)

    def attempt(self, action: Callable[[], object]) -> str:
        """Run an action, and return `done`, or the error as :func:`describe` prints it."""
        try:
            action()
        except SqlError as error:
            return describe(error)
        return "done"

    def sqlstate(self, action: Callable[[], object]) -> str:
        """Run an action, and return `done`, or the SQLSTATE of its error."""
        return self.attempt(action).partition(" ")[0]

    def refusal(self, action: Callable[[], object]) -> str:
        """Run an action, and return `refused` when the server rejects its data; else `done`, or the described error."""
        outcome = self.attempt(action)
        # SQLSTATE: data exceptions, what PL/pgSQL raises, check_violation
        return "refused" if outcome[:2] in {"22", "P0"} or outcome.startswith("23514") else outcome

    # --- the trail ----------------------------------------------------------------------------------

    def alter(self, table: str, statements: str, *, changed_from: bool = False) -> None:
        """Run DDL as the owner, and attach capture to a table again where the audit target asks for it.

        :param table: the audited table after the DDL, as an SQL identifier.
        :param changed_from: whether it was attached with its prior values.
        """
        self.owner.run(statements)
        if self.target.reattach:
            self.target.attach(self.owner, table, changed_from=changed_from)

    def changes(self, table: str | None = None) -> list[Change]:
        """Return the captured changes of this database, oldest first; only those of one table when it is named."""
        return self.target.changes(self.admin, table)

    def actor_of(self, slug: str) -> Any:
        """Return the actor of the change that `insert_post` made; a sentence unless there is exactly one such."""
        changes = self.changes("posts")
        if self.records(Recorded.IMAGE):
            found = [change for change in changes if (change.data_after or {}).get("slug") == slug]
        else:
            key = self.admin.value("SELECT id::text FROM public.posts WHERE slug = %s", [slug])
            found = [change for change in changes if str((change.table_pk or {}).get("id")) == key]
        return found[0].actor if len(found) == 1 else f"{len(found)} changes instead of one"
