"""What one check may touch: its own database, clients through the chain, the trail, and `expect`."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Protocol

from harness.checks.documented import WORKS, BehaviourEntry, documented
from harness.checks.record import CheckRecord, NotExercisedError
from harness.database import Client, SqlError, connect, describe
from harness.host.canary import Canary, scratch_canary
from harness.lab.recognised import declared_facts
from harness.model import (
    Behaviour,
    Expectation,
    FeatureOutcome,
    Finding,
    Outcome,
    PoolMode,
    Prepare,
    ServiceEvidence,
    Severity,
    Topology,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.audit.actor import Actor
    from harness.audit.target import AuditTarget, Change
    from harness.audit.target_file import ActorConvention, TrailFeature
    from harness.database import Endpoint
    from harness.host.site import Site
    from harness.lab.lab import Lab

_UNTAMPER = "DROP FUNCTION public.tamper() CASCADE"

#: the expectation that says what came of a feature
OUTCOME = "outcome"
#: of an outcome that is not as documented
_SEVERITIES = {
    Behaviour.WRONG: Severity.P0,
    Behaviour.LEAKS: Severity.P0,
    Behaviour.LOST: Severity.P1,
    Behaviour.FAILS: Severity.P1,
    Behaviour.HANGS: Severity.P1,
    Behaviour.WORKS: Severity.P2,
}


class Application:
    """The habits of the application under test. A control replaces one with a careless one.

    All habits are those that the audit target asks for. The contract's is to set the actor locally, in the
    transaction of the write and before it.
    """

    def __init__(self, convention: ActorConvention) -> None:
        self.convention = convention
        self.setting = convention.setting
        self.transaction: Callable[[Client], contextlib.AbstractContextManager[Any]] = Client.transaction
        self.declare: Callable[[Client, Actor], None] = (
            self.declare_locally if convention.scope == "transaction" else self.declare_for_the_session
        )
        self.begin: Callable[[Client], object] = lambda client: client.run("BEGIN")
        self.sends_startup_options = True
        #: the operator's retention policy, over what a check asks for
        self.policy: dict[str, Any] = {}
        self.action_status = "ok"
        self.undo = "ROLLBACK"
        self.undo_to = "ROLLBACK TO SAVEPOINT {}"

    def declare_locally(self, client: Client, actor: Actor) -> None:
        client.value("SELECT set_config(%s, %s, true)", [self.setting, self.convention.spell(actor)])

    def declare_for_the_session(self, client: Client, actor: Actor) -> None:
        client.value("SELECT set_config(%s, %s, false)", [self.setting, self.convention.spell(actor)])

    def declare_nothing(self, _client: Client, _actor: Actor) -> None:
        pass

    def begin_nothing(self, _client: Client) -> None:
        """Leave every statement to commit by itself."""

    @contextlib.contextmanager
    def audited(self, client: Client, actor: Actor | None) -> Iterator[Client]:
        """One audited unit of work, as the audit target asks for it."""
        within = self.convention.scope == "transaction"
        if actor and not within:
            self.declare(client, actor)
        with self.transaction(client):
            if actor and within:
                self.declare(client, actor)
            yield client


class DatabaseSource(Protocol):
    """What a context needs of the workspace that made it. Importing the workspace would close an import circle."""

    @property
    def attached(self) -> dict[str, str]: ...
    def site(self) -> Site: ...
    def new_database(self, name: str, /) -> None: ...
    def drop_database(self, name: str, /) -> None: ...
    def forget_connections(self) -> None: ...


class CheckContext(CheckRecord):
    """One check's workplace. Everything it opens is closed with it."""

    def __init__(self, lab: Lab, target: AuditTarget, database: str, workspace: DatabaseSource) -> None:
        super().__init__(target)
        self._lab = lab
        self._workspace = workspace
        self._admin: Client | None = None
        self._owner: Client | None = None
        self.database = database
        self.application = Application(target.actor)
        #: a control: what is declared of the chain in place of the truth
        self.declared: dict[str, str] = {}
        #: a control: whether the address of the chain is really the server's
        self.past_the_pooler = False
        #: a control: whether the canary table is captured
        self.canary_captured = True

    # --- connections ------------------------------------------------------------------------------

    @property
    def topology(self) -> Topology:
        return self._lab.topology

    @property
    def lab(self) -> Lab:
        return self._lab

    @property
    def site(self) -> Site:
        """The reference host application; it and its database are shared by all checks of paths.

        :raises NotExercisedError: when it does not run here.
        """
        return self._workspace.site()

    @property
    def audited_tables(self) -> tuple[str, ...]:
        """Tables that must be captured: of the fixtures those that could be, by names that need no quotes."""
        return tuple(name for name, came in self.attached.items() if came == "done" and '"' not in name)

    @property
    def sharing_mode(self) -> bool:
        """Whether clients share server connections here, each for a transaction at a time."""
        return self.mode in {PoolMode.TRANSACTION, PoolMode.STATEMENT}

    def recognised(self) -> tuple[tuple[Finding, ...], dict[str, str]]:
        """Return what was found of the chain by who was told its address only, and what is declared of it."""
        return self._lab.evidence.findings, declared_facts(self.topology, self._lab.evidence) | self.declared

    def trail_reader(self) -> Client:
        """Return a connection that may read the trail."""
        return self.admin

    @contextlib.contextmanager
    def canary(self) -> Iterator[Canary]:
        """Give a captured table that is made for the check."""
        role = self._lab.roles.app.name
        with scratch_canary(self.another_owner, self.target, "public", role, self.left_behind) as canary:
            if not self.canary_captured:
                self.disable_capture(canary.table)
            yield canary

    @property
    def mode(self) -> PoolMode | None:
        return self.topology.pool_mode

    @property
    def pooler(self) -> ServiceEvidence | None:
        """The pooler as it really runs."""
        return self._lab.evidence.service("pooler") if self.topology.pooler else None

    @property
    def prepare_threshold(self) -> int | None:
        """How psycopg prepares here: after so many executions, or never."""
        named = self.topology.client.prepare is Prepare.NAMED
        return self.topology.client.prepare_threshold if named else None

    def client(self, *, options: str = "", always_prepare: bool = False) -> Client:
        """Connect through the chain as the application role."""
        threshold = self.prepare_threshold
        return self._keep(
            connect(
                self._lab.chain(self.database),
                application_name="application",
                options=options,
                prepare_threshold=0 if always_prepare and threshold is not None else threshold,
            )
        )

    def plain_client(self) -> Client:
        """Connect through the chain as the application role, with a driver that prepares nothing by itself."""
        return self._keep(connect(self._lab.chain(self.database), application_name="application"))

    def connect(self, endpoint: Endpoint, prepare_threshold: int | None = None) -> Client:
        """Connect to any address; like all clients of a bench it ends with it."""
        return self._keep(connect(endpoint, application_name="application", prepare_threshold=prepare_threshold))

    def direct_client(self) -> Client:
        """Connect to the server itself as the application role."""
        return self._keep(connect(self._lab.direct(self.database), application_name="application"))

    def dba(self) -> Client:
        """Connect through the chain as a superuser."""
        return self._keep(connect(self._lab.dba(self.database), application_name="dba"))

    def clients(self, count: int) -> list[Client]:
        return [self.client() for _ in range(count)]

    @property
    def admin(self) -> Client:
        """The superuser on the direct connection: for observing, and for breaking on purpose."""
        if self._admin is None:
            self._admin = self._keep(connect(self._lab.admin(self.database), application_name="pooler-harness bench"))
        return self._admin

    @property
    def owner(self) -> Client:
        """The owner of the tables on the direct connection."""
        if self._owner is None:
            self._owner = self.another_owner()
        return self._owner

    def another_owner(self) -> Client:
        """Connect once more as the owner: for what two of its programs do at a time."""
        return self._keep(connect(self._lab.owner(self.database), application_name="pooler-harness owner"))

    def empty_database(self, name: str) -> Client:
        """Return its owner on another, empty database, which lasts as long as the check: a second environment."""
        database = f"{self.database[:50]}_{name}"
        self._workspace.new_database(database)
        self._stack.callback(self._workspace.drop_database, database)
        return self._keep(connect(self._lab.owner(database), application_name="pooler-harness owner"))

    @property
    def attached(self) -> dict[str, str]:
        """What putting capture on each fixture table came to: `done`, or the error."""
        return self._workspace.attached

    def claims(self, feature: TrailFeature) -> bool:
        return feature in self.target.claims

    def forget_connections(self) -> None:
        """Connect anew from here on: the server was restarted."""
        self._admin = self._owner = None
        self._workspace.forget_connections()

    # --- the application's work -------------------------------------------------------------------

    def audited(self, client: Client, actor: Actor | None) -> contextlib.AbstractContextManager[Client]:
        """Open one audited unit of work, with the habits of the application under test."""
        return self.application.audited(client, actor)

    def insert_post(self, client: Client, slug: str) -> None:
        client.run("INSERT INTO public.posts (slug, title) VALUES (%s, 'a title')", [slug])

    def write(self, client: Client, actor: Actor | None, slug: str) -> None:
        """Commit one audited insert."""
        with self.audited(client, actor):
            self.insert_post(client, slug)

    def attempt(self, action: Callable[[], object]) -> str:
        """Return `done`, or the error as the evidence spells it."""
        try:
            action()
        except SqlError as error:
            return describe(error)
        return "done"

    def sqlstate(self, action: Callable[[], object]) -> str:
        """Return `done`, or the error's SQLSTATE."""
        return self.attempt(action).partition(" ")[0]

    def refusal(self, action: Callable[[], object]) -> str:
        """Return `refused` when the data is refused for what it is; else `done`, or the error as it is spelt."""
        outcome = self.attempt(action)
        # SQLSTATE: data exceptions, what PL/pgSQL raises, check_violation
        return "refused" if outcome[:2] in {"22", "P0"} or outcome.startswith("23514") else outcome

    # --- the trail ----------------------------------------------------------------------------------

    def changes(self, table: str | None = None) -> list[Change]:
        return self.target.changes(self.admin, table)

    def actor_of(self, slug: str) -> Any:
        """Return the actor of the one change that inserted a post."""
        found = [each for each in self.changes("posts") if (each.data_after or {}).get("slug") == slug]
        return found[0].actor if len(found) == 1 else f"{len(found)} changes instead of one"

    # --- deliberate breaks ----------------------------------------------------------------------------

    def sabotage(self, statements: str) -> None:
        """Run SQL as superuser in this check's database."""
        self.admin.run(statements)

    def disable_capture(self, table: str) -> None:
        self.sabotage(f"ALTER TABLE {table} DISABLE TRIGGER USER")

    def tamper(self, table: str, body: str) -> None:
        """Change every row on its way into a table of the trail: `body` assigns to NEW."""
        self.sabotage(
            "CREATE FUNCTION public.tamper() RETURNS trigger LANGUAGE plpgsql AS "
            f"$t$ BEGIN {body}; RETURN NEW; END $t$;"
            f"CREATE TRIGGER tamper BEFORE INSERT ON public.{table} FOR EACH ROW EXECUTE FUNCTION public.tamper()"
        )

    def tamper_for_now(self, table: str, body: str) -> None:
        self.tamper(table, body)
        self._stack.callback(self.sabotage, _UNTAMPER)

    def tamper_at_commit(self, table: str, statement: str) -> None:
        """Change a table of the trail when a transaction commits, so that no host notices; until the check ends."""
        self.sabotage(
            "CREATE FUNCTION public.tamper() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS "
            f"$t$ BEGIN {statement}; RETURN NULL; END $t$;"
            f"CREATE CONSTRAINT TRIGGER tamper AFTER INSERT ON public.{table} DEFERRABLE INITIALLY DEFERRED "
            "FOR EACH ROW EXECUTE FUNCTION public.tamper()"
        )
        self._stack.callback(self.sabotage, _UNTAMPER)

    def rewrite_function(self, name: str, *replacements: tuple[str, str]) -> None:
        """Replace text in one of the trail's functions; each text must occur in it."""
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
        """Replace text in the capture functions; each text must occur in one of them at least."""
        changed = dict(self.target.functions(self.admin))
        for old, new in replacements:
            if not any(old in definition for definition in changed.values()):
                raise NotExercisedError(f"the capture functions do not contain {old!r}, so they cannot be broken there")
            changed = {name: definition.replace(old, new) for name, definition in changed.items()}
        for definition in changed.values():
            self.sabotage(definition)

    # --- what is documented -----------------------------------------------------------------------------

    def documented(self, feature: str, *, defects: bool = True) -> BehaviourEntry | None:
        """Return what is documented of a feature here, by the pooler or else by PostgreSQL.

        :param defects: also what only the product's issue tracker says.
        """
        pooler, declared = self.pooler, self.topology.pooler
        if pooler and declared:
            # PgBouncer shows no such setting before it could track statements
            settings = {"max_prepared_statements": "0", **declared.settings, **pooler.settings}
            settings |= {"instances": str(declared.instances), "peered": str(declared.peered).lower()}
            found = documented(declared.product, feature, self.mode, pooler.version, settings, defects=defects)
            if found:
                return found
        return documented("postgres", feature, self.mode, self._lab.evidence.service("postgres").version, {})

    def foreseen(self, feature: str) -> tuple[Outcome, ...]:
        """Return what will be seen of a feature, if it is as documented; as without a pooler by default."""
        entry = self.documented(feature)
        return entry.outcomes() if entry else (WORKS,)

    def judge(self, feature: str, title: str, observed: Outcome) -> None:
        """Compare what came of a feature with what is documented; an undocumented wrong answer or leak is a P0."""
        entry = self.documented(feature)
        defect = entry is not None and entry.defect and observed in entry.outcomes()
        right = self.documented(feature, defects=False)
        expected = right.outcomes() if right else (WORKS,)
        source = entry.source if entry and defect else right.source if right else ""
        held = observed in expected
        self.feature = FeatureOutcome(observed=observed, expected=expected, source=source, defect=defect)
        self.expectations.append(
            Expectation(name=OUTCOME, expected=" or ".join(map(str, expected)), observed=str(observed), held=held)
        )
        if held and observed != WORKS:
            self.documented_limit(f"{title}: {observed}", source)
        if not held:
            self.severity = _SEVERITIES[observed.behaviour]
