"""The context of one check: its own database, clients through the chain, the trail, and `expect`."""

from __future__ import annotations

import contextlib
import secrets
from typing import TYPE_CHECKING, Any, Protocol

from msgspec.structs import replace

from harness.checks.application import Application
from harness.checks.conditions import facts_of
from harness.checks.documented import WORKS, BehaviourEntry, Documented, better_than, compare, documented
from harness.checks.judges import REPLACED_JUDGE
from harness.checks.pipeline_breaks import PipelineBreaks
from harness.checks.record import CheckRecord, NotExercisedError
from harness.database import Client, Side, SqlError, connect, describe
from harness.events import CheckProgress
from harness.host.canary import Canary, scratch_canary
from harness.lab.effective import effective_limits
from harness.lab.recognised import declared_facts
from harness.model import (
    Behaviour,
    Expectation,
    Finding,
    Outcome,
    PoolMode,
    Prepare,
    ServiceEvidence,
    Severity,
    Topology,
)
from harness.store import read_history, read_state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from threading import Event

    from harness.audit.actor import Actor
    from harness.audit.target import AuditTarget, Change
    from harness.audit.target_file import TrailFeature
    from harness.checks.judges import Judge
    from harness.checks.load import LoadSettings
    from harness.database import Endpoint
    from harness.events import Event as Notification
    from harness.host.site import Site
    from harness.lab.host import HostService
    from harness.lab.lab import Lab
    from harness.store import Journal

_UNTAMPER = "DROP FUNCTION public.tamper() CASCADE"

#: the name of the expectation that compares the outcome of a feature with the documented one
OUTCOME = "outcome"
#: of an outcome that differs from the documented one
_SEVERITIES = {
    Behaviour.WRONG: Severity.P0,
    Behaviour.LEAKS: Severity.P0,
    Behaviour.LOST: Severity.P1,
    Behaviour.FAILS: Severity.P1,
    Behaviour.HANGS: Severity.P1,
    Behaviour.WORKS: Severity.P2,
}


class DatabaseSource(Protocol):
    """What a context needs of its :class:`Workspace`. Importing that class here would close an import circle."""

    @property
    def attached(self) -> dict[str, str]: ...
    @property
    def load(self) -> LoadSettings: ...
    def site(self) -> Site: ...
    def host_service(self) -> HostService: ...
    def journal(self, ctx: CheckRecord, judge: str, facts: dict[str, str], /) -> Journal: ...
    def notify(self, event: Notification, /) -> None: ...
    def new_database(self, name: str, template: str | None = None, /) -> None: ...
    def prepared(self, what: str, prepare: Callable[[str], None], /) -> str: ...
    def drop_database(self, name: str, /) -> None: ...
    def forget_connections(self) -> None: ...


class CheckContext(CheckRecord):
    """The context of one check. It closes everything that the check opened."""

    def __init__(self, lab: Lab, target: AuditTarget, database: str, workspace: DatabaseSource) -> None:
        super().__init__(target)
        self._lab = lab
        self._workspace = workspace
        self._admin: Client | None = None
        self._owner: Client | None = None
        self.database = database
        self.application = Application(target.actor)
        #: set by a control: wrong facts that are declared of the chain, by name
        self.declared: dict[str, str] = {}
        #: set by a control: the address of the chain is the server's own
        self.past_the_pooler = False
        #: replaced by a control: returns the judge that decides instead of the given one
        self.judged_by: Callable[[Judge], Judge] = lambda judge: judge
        #: set by a control: statements that run in the database of effects of jobs
        self.effects_sql = ""
        #: set by a control: statements that run in the database of migrations, by the step that they follow
        self.schema_sql: dict[str, str] = {}
        #: set by a control: replaces the query for the states of jobs
        self.engine_states = ""
        #: set by a control: what jobs are awaited for does not come
        self.awaited_in_vain = False
        #: set by a control: gets the name of the database of the job engine
        self.with_engine_database: Callable[[str], None] = lambda _database: None
        #: set by a control: what it changes of an ingest pipeline
        self.pipeline = PipelineBreaks()
        #: cleared by a control: the canary table is not captured
        self.canary_captured = True

    # --- connections ------------------------------------------------------------------------------

    @property
    def topology(self) -> Topology:
        """The topology as it runs: the pooler's version may force another prepare policy than the declared one."""
        return self._lab.topology

    @property
    def lab(self) -> Lab:
        """The running servers, for checks that break them or connect in other roles."""
        return self._lab

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

    @property
    def sharing_mode(self) -> bool:
        """Whether clients share server connections here, each for one transaction or statement at a time."""
        return self.mode in {PoolMode.TRANSACTION, PoolMode.STATEMENT}

    def recognised(self) -> tuple[tuple[Finding, ...], dict[str, str]]:
        """Return the findings of a client that knew only the addresses, and the declared facts by name."""
        return self._lab.evidence.findings, declared_facts(self.topology, self._lab.evidence) | self.declared

    @property
    def load(self) -> LoadSettings:
        """How long and how often checks under load or faults run."""
        return self._workspace.load

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

    def trail_reader(self) -> Client:
        """Return a connection that may read the trail."""
        return self.admin

    @contextlib.contextmanager
    def canary(self) -> Iterator[Canary]:
        """Return a captured table that is made for the check, and removed with it."""
        role = self._lab.roles.app.name
        with scratch_canary(self.another_owner, self.target, "public", role, self.left_behind) as canary:
            if not self.canary_captured:
                self.disable_capture(canary.table)
            yield canary

    @property
    def mode(self) -> PoolMode | None:
        """The pool mode; None without a pooler."""
        return self.topology.pool_mode

    @property
    def pooler(self) -> ServiceEvidence | None:
        """The pooler as it runs, with its effective settings; None without a pooler."""
        return self._lab.evidence.service("pooler") if self.topology.pooler else None

    @property
    def prepare_threshold(self) -> int | None:
        """The number of executions after which psycopg prepares a statement on the server; None for never."""
        named = self.topology.client.prepare is Prepare.NAMED
        return self.topology.client.prepare_threshold if named else None

    def client(self, *, options: str = "", always_prepare: bool = False) -> Client:
        """Connect through the chain as the application role.

        :param options: command-line options for the server, as libpq sends them in the startup message.
        :param always_prepare: whether to prepare at the first execution, where the topology prepares at all.
        """
        threshold = self.prepare_threshold
        self._require_a_server_connection()
        return self._through(
            self._lab.chain(self.database),
            options=options,
            prepare_threshold=0 if always_prepare and threshold is not None else threshold,
        )

    def plain_client(self) -> Client:
        """Connect through the chain as the application role, with a driver that never prepares on its own."""
        self._require_a_server_connection()
        return self._through(self._lab.chain(self.database))

    def _require_a_server_connection(self) -> None:
        """Require that the pool has more than the server connection that an earlier client of the check keeps.

        In session mode the next client would wait for a client that waits for it, longer than the check may take.

        :raises NotExercisedError: when it has not.
        """
        limits, chain = effective_limits(self._lab.evidence), self._lab.chain(self.database)
        if self.mode is not PoolMode.SESSION or limits is None or limits.largest > 1:
            return
        for client in self._clients:
            if not client.closed and (client.info.port, client.info.user) == (chain.port, chain.user):
                raise NotExercisedError("the pool has a single server connection, and another client keeps it")

    def connect(self, endpoint: Endpoint, prepare_threshold: int | None = None) -> Client:
        """Connect to any address. The context closes this connection like all others."""
        return self._through(endpoint, prepare_threshold=prepare_threshold)

    def direct_client(self) -> Client:
        """Connect directly to the server as the application role."""
        return self.connect(self._lab.direct(self.database))

    def dba(self) -> Client:
        """Connect through the chain as a superuser."""
        return self._through(self._lab.dba(self.database), application_name="dba")

    def _through(
        self,
        endpoint: Endpoint,
        *,
        application_name: str = "application",
        options: str = "",
        prepare_threshold: int | None = None,
    ) -> Client:
        with self._lab.hunting:  # wait until no other check waits for a released server connection
            pass
        return self._keep(
            connect(
                endpoint,
                application_name=application_name,
                options=options,
                prepare_threshold=prepare_threshold,
                side=Side.APPLICATION,
            )
        )

    def server_connections(self, role: str) -> set[int]:
        """Return the server processes of the pooler's connections to this database, as a role."""
        server = self._lab.postgres.endpoint()
        own = [
            client.info.backend_pid
            for client in self._clients
            if not client.closed and (client.info.host, client.info.port) == (server.host, server.port)
        ]
        found = self.admin.rows(
            "SELECT pid FROM pg_stat_activity"
            " WHERE datname = current_database() AND usename = %s AND backend_type = 'client backend'"
            " AND pid <> ALL(%s)",
            [role, own],
        )
        return {pid for (pid,) in found}

    def clients(self, count: int) -> list[Client]:
        """Connect through the chain as the application role, `count` times."""
        return [self.client() for _ in range(count)]

    @property
    def admin(self) -> Client:
        """The superuser on the direct connection: it observes, and breaks things on purpose. It is opened once."""
        if self._admin is None:
            self._admin = self._keep(connect(self._lab.admin(self.database), application_name="pooler-harness check"))
        return self._admin

    @property
    def owner(self) -> Client:
        """The owner of the tables on the direct connection. It is opened once."""
        if self._owner is None:
            self._owner = self.another_owner()
        return self._owner

    def another_owner(self) -> Client:
        """Connect once more as the owner, for two programs of the owner at the same time."""
        return self._keep(connect(self._lab.owner(self.database), application_name="pooler-harness owner"))

    def empty_database(self, name: str) -> Client:
        """Create a second, empty database, and return a connection of its owner. It is dropped when the check ends."""
        database = self._own_database(f"{self.database[:50]}_{name}")
        return self._keep(connect(self._lab.owner(database), application_name="pooler-harness owner"))

    def database_like(self, what: str, prepare: Callable[[str], None]) -> str:
        """Create a second database with the trail in which something more was prepared, once for all checks.

        :param what: names the preparation, such as a job engine.
        :param prepare: gets the name of a database; it leaves no connection to it.
        :return: the name of the database, which is dropped when the check ends.
        """
        return self._own_database(f"j{secrets.token_hex(6)}", self._workspace.prepared(what, prepare))

    def _own_database(self, name: str, template: str | None = None) -> str:
        self._workspace.new_database(name, template)
        self._stack.callback(self._workspace.drop_database, name)
        return name

    @property
    def attached(self) -> dict[str, str]:
        """The fixture tables by name: `done` when capture is attached, else the error."""
        return self._workspace.attached

    def claims(self, feature: TrailFeature) -> bool:
        """Return whether the audit target claims a feature."""
        return feature in self.target.claims

    def forget_connections(self) -> None:
        """Open new connections from now on, because the server was restarted."""
        self._admin = self._owner = None
        self._workspace.forget_connections()

    # --- the application's work -------------------------------------------------------------------

    def audited(self, client: Client, actor: Actor | None) -> contextlib.AbstractContextManager[Client]:
        """Open one audited unit of work, with the habits of the application under test."""
        return self.application.audited(client, actor)

    def insert_post(self, client: Client, slug: str) -> None:
        """Insert a row into the captured table `posts`; the caller decides about the transaction."""
        client.run("INSERT INTO public.posts (slug, title) VALUES (%s, 'a title')", [slug])

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

    def changes(self, table: str | None = None) -> list[Change]:
        """Return the captured changes of this database, oldest first; only those of one table when it is named."""
        return self.target.changes(self.admin, table)

    def actor_of(self, slug: str) -> Any:
        """Return the actor of the change that inserted a post; a sentence when there is not exactly one such change."""
        found = [change for change in self.changes("posts") if (change.data_after or {}).get("slug") == slug]
        return found[0].actor if len(found) == 1 else f"{len(found)} changes instead of one"

    # --- deliberate breaks ----------------------------------------------------------------------------

    def sabotage(self, statements: str) -> None:
        """Run SQL statements as superuser in the database of this check."""
        self.admin.run(statements)

    def disable_capture(self, table: str) -> None:
        """Disable the triggers of a table, so that its changes are not captured."""
        self.sabotage(f"ALTER TABLE {table} DISABLE TRIGGER USER")

    def tamper(self, table: str, body: str) -> None:
        """Change every row that is inserted into a table of the trail.

        :param body: PL/pgSQL that assigns to NEW, without the last semicolon.
        """
        self.sabotage(
            "CREATE FUNCTION public.tamper() RETURNS trigger LANGUAGE plpgsql AS "
            f"$t$ BEGIN {body}; RETURN NEW; END $t$;"
            f"CREATE TRIGGER tamper BEFORE INSERT ON public.{table} FOR EACH ROW EXECUTE FUNCTION public.tamper()"
        )

    def tamper_for_now(self, table: str, body: str) -> None:
        """Tamper until the check ends: for the database of the host, which other checks use as well."""
        self.tamper(table, body)
        self._stack.callback(self.sabotage, _UNTAMPER)

    def tamper_at_commit(self, table: str, statement: str) -> None:
        """Change a table of the trail when a transaction commits, so that the host does not notice.

        The trigger lasts until the check ends.

        :param statement: SQL that runs as superuser for each inserted row, without the last semicolon.
        """
        self.sabotage(
            "CREATE FUNCTION public.tamper() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS "
            f"$t$ BEGIN {statement}; RETURN NULL; END $t$;"
            f"CREATE CONSTRAINT TRIGGER tamper AFTER INSERT ON public.{table} DEFERRABLE INITIALLY DEFERRED "
            "FOR EACH ROW EXECUTE FUNCTION public.tamper()"
        )
        self._stack.callback(self.sabotage, _UNTAMPER)

    def rewrite_function(self, name: str, *replacements: tuple[str, str]) -> None:
        """Replace text in one function of the trail.

        :param replacements: old and new text; each old text must occur in the function.
        :raises NotExercisedError: when one does not occur.
        """
        definition = self.admin.value(
            "SELECT pg_get_functiondef(oid) FROM pg_proc WHERE proname = %s AND pronamespace = 'public'::regnamespace",
            [name],
        )
        for old, new in replacements:
            if old not in (definition or ""):
                raise NotExercisedError(f"the function {name} does not contain {old!r}, so it cannot be broken there")
            definition = definition.replace(old, new)
        self.sabotage(definition)

    def rewrite_capture(self, *replacements: tuple[str, str]) -> None:
        """Replace text in all capture functions.

        :param replacements: old and new text; each old text must occur in at least one of the functions.
        :raises NotExercisedError: when one occurs in none.
        """
        changed = dict(self.target.functions(self.admin))
        for old, new in replacements:
            if not any(old in definition for definition in changed.values()):
                raise NotExercisedError(f"the capture functions do not contain {old!r}, so they cannot be broken there")
            changed = {name: definition.replace(old, new) for name, definition in changed.items()}
        for definition in changed.values():
            self.sabotage(definition)

    # --- what is documented -----------------------------------------------------------------------------

    def documented(self, feature: str, *, defects: bool = True) -> BehaviourEntry | None:
        """Return the documented behaviour of a feature here: the pooler's entry, else PostgreSQL's, else None.

        :param feature: the name of a pooling check without its suite, or of a driver check with `driver-` before it.
        :param defects: whether to include behaviour that only the product's issue tracker describes.
        """
        return self._documented(feature, defects=defects).entry

    def _documented(self, feature: str, *, defects: bool = True, option: str = "") -> Documented:
        possible: tuple[BehaviourEntry, ...] = ()
        for facts in facts_of(self.topology, self._lab.evidence):
            found = documented(feature, replace(facts, option=option) if option else facts, defects=defects)
            possible += found.possible
            if found.entry:
                return Documented(entry=found.entry, possible=possible)
        return Documented(possible=possible)

    def _better_than(self, feature: str) -> str:
        found = (better_than(feature, facts) for facts in facts_of(self.topology, self._lab.evidence))
        return next(filter(None, found), "")

    def foreseen(self, feature: str, *, option: str = "") -> tuple[Outcome, ...]:
        """Return the expected outcomes of a feature: the documented ones, by default that it works.

        :param option: the setting that a client sends in its startup options, for the feature `startup-options`.
        """
        return self._documented(feature, option=option).outcomes()

    def judge(self, feature: str, title: str, observed: Outcome) -> None:
        """Compare the outcome of a feature with the documented one, and set the severity of a difference.

        An undocumented wrong answer or leak is P0. A documented outcome that is not `works` is recorded as a limit. A
        defect that only the product's issue tracker describes stays an Issue. A feature that works where a limit is
        documented is better than documented, and no Issue. Only a control is judged strictly: the check has to notice
        it when the feature begins to work, too.

        :param feature: see :meth:`documented`.
        :param title: the feature in words, for the limit.
        """
        found, right = self._documented(feature), self._documented(feature, defects=False)
        compared = compare(observed, found, right, strictly=self.sabotaged)
        held = compared.better or observed in compared.expected
        expected = " or ".join(map(str, compared.expected))
        shown = f"{expected}, or better" if compared.better else expected
        if not self.add(Expectation(name=OUTCOME, expected=shown, observed=str(observed), held=held)):
            return  # the harness had ended the probe: the outcome is not the feature's
        if observed == WORKS and held and not compared.better:
            compared = replace(compared, better_than=self._better_than(feature))
        self.feature = compared
        if compared.better:
            self.fact("better than documented", f"documented: {expected} ({compared.source})")
        elif compared.better_than:
            self.fact("better than in the version before", compared.better_than)
        elif held and observed != WORKS:
            self.documented_limit(f"{title}: {observed}", compared.source)
        if not held:
            self.severity = _SEVERITIES[observed.behaviour]
