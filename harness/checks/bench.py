"""What one check may touch: its own database, clients through the chain, the trail, and `expect`."""

from __future__ import annotations

import contextlib
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from harness.checks.documented import WORKS, Entry, documented
from harness.database import Client, SqlError, connect, cut, describe
from harness.model import (
    BackendProbe,
    Behaviour,
    Expectation,
    FeatureOutcome,
    Limit,
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
    from harness.audit.target_file import ActorConvention, Feature
    from harness.checks.workplace import Workplace
    from harness.database import Endpoint
    from harness.lab.lab import Lab

T = TypeVar("T")

_LONGEST = 400

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


class NotExercisedError(Exception):
    """The probe could not bring about what it wanted to observe: Not run, never OK."""


class NotApplicableError(Exception):
    """What the check is about is not there in this topology: N/A, with the one objective sentence that it carries."""


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


class Bench:
    """One check's workplace. Everything it opens is closed with it."""

    def __init__(self, lab: Lab, target: AuditTarget, database: str, workplace: Workplace) -> None:
        self._lab = lab
        self._workplace = workplace
        self._stack = ExitStack()
        self._clients: list[Client] = []
        self._admin: Client | None = None
        self._owner: Client | None = None
        self.target = target
        self.database = database
        self.application = Application(target.actor)
        self.expectations: list[Expectation] = []
        self.probes: list[BackendProbe] = []
        self.facts: dict[str, str] = {}
        self.limit: Limit | None = None
        self.feature: FeatureOutcome | None = None
        self.severity: Severity | None = None
        #: a control: the probe steps in halfway, so that the feature behaves otherwise than it is expected to
        self.otherwise = False
        #: a control: what is declared of the chain in place of the truth
        self.declared: dict[str, str] = {}

    # --- connections ------------------------------------------------------------------------------

    @property
    def topology(self) -> Topology:
        return self._lab.topology

    @property
    def lab(self) -> Lab:
        return self._lab

    @property
    def mode(self) -> PoolMode | None:
        return self.topology.pool_mode

    @property
    def pooler(self) -> ServiceEvidence | None:
        """The pooler as it really runs."""
        return self._lab.evidence.services[1] if self.topology.pooler else None

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
        self._workplace.new_database(database)
        self._stack.callback(self._workplace.drop_database, database)
        return self._keep(connect(self._lab.owner(database), application_name="pooler-harness owner"))

    @property
    def attached(self) -> dict[str, str]:
        """What putting capture on each fixture table came to: `done`, or the error."""
        return self._workplace.attached

    def claims(self, feature: Feature) -> bool:
        return feature in self.target.claims

    def forget_connections(self) -> None:
        """Connect anew from here on: the server was restarted."""
        self._admin = self._owner = None
        self._workplace.forget_connections()

    def _keep(self, client: Client) -> Client:
        self._stack.callback(client.close)
        self._clients.append(client)
        return client

    def cut(self) -> None:
        """End every connection under whoever waits on it, in another thread."""
        for client in list(self._clients):
            cut(client)

    def close(self) -> None:
        with contextlib.suppress(SqlError):
            self._stack.close()

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

    # --- findings -------------------------------------------------------------------------------------

    def expect(self, name: str, observed: T, *, equals: T) -> bool:
        """Compare one fact; the check goes on either way."""
        held = observed == equals
        self.expectations.append(Expectation(name=name, expected=spell(equals), observed=spell(observed), held=held))
        return held

    def fact(self, name: str, value: object) -> None:
        """Record something observed that is not judged."""
        self.facts[name] = spell(value)

    def probed(self, how: str, first_pid: int, second_pid: int) -> None:
        self.probes.append(BackendProbe(how=how, first_pid=first_pid, second_pid=second_pid))

    def documented(self, feature: str, *, defects: bool = True) -> Entry | None:
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
        return documented("postgres", feature, self.mode, self._lab.evidence.services[0].version, {})

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

    def documented_limit(self, outcome: str, source: str) -> None:
        """Record that the check saw a documented limit at work: what happens, and who says so."""
        self.limit = Limit(outcome=outcome, source=source)

    def trail_limit(self, outcome: str) -> None:
        """Record a limit of the audit trail itself; one that its target documents nowhere is an Issue."""
        told = self.target.documentation
        found = "documented" if told else "documented nowhere that its target names"
        if self.expect(f"the limit that {outcome}", found, equals="documented"):
            self.documented_limit(outcome, told)


def spell(value: object) -> str:
    """Return a value as the evidence prints it: short text as it is, the rest as JSON."""
    if isinstance(value, str):
        text = value
    else:
        try:
            text = msgspec.json.encode(value, order="deterministic").decode()
        except (TypeError, ValueError):
            text = repr(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
