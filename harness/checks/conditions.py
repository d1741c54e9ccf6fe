"""Conditions of documented behaviour over effective settings: `when = { … }` in `topologies/behaviour/`.

A condition says what a setting does, not how it is spelled. Each setting has a kind, and each kind its predicates. A
setting that cannot be read, or a value that is not understood, makes its condition unknown: such an entry permits its
outcome, and never contradicts another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from harness.config import nearest
from harness.errors import ConfigError
from harness.lab.effective import flag, names_of, number, pool_limits, released, spelled_names_of, tracked
from harness.lab.reset_query import STATES, Reset
from harness.model import PoolMode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.model import Topology, TopologyEvidence


class Kind(StrEnum):
    """The kind of a setting: which predicates it has, and how its value is read."""

    FLAG = "flag"
    NUMBER = "number"
    NAMES = "list of names"
    #: PgBouncer compares the names of this list as they are spelled
    SPELLED_NAMES = "list of names, as they are spelled"
    RELEASE = "state"


#: what `when` can name: settings of poolers, and facts that follow from several of them
SETTINGS: Mapping[str, Kind] = {
    "server_reset_query_always": Kind.FLAG,
    "server_round_robin": Kind.FLAG,
    "application_name_add_host": Kind.FLAG,
    "disable_pqexec": Kind.FLAG,
    "peered": Kind.FLAG,
    "instances": Kind.NUMBER,
    "max_prepared_statements": Kind.NUMBER,
    "server_lifetime": Kind.NUMBER,
    "query_wait_timeout": Kind.NUMBER,
    "query_timeout": Kind.NUMBER,
    "client_idle_timeout": Kind.NUMBER,
    "idle_transaction_timeout": Kind.NUMBER,
    "transaction_timeout": Kind.NUMBER,
    #: most server connections of one pool, after all limits
    "pool_size": Kind.NUMBER,
    "ignore_startup_parameters": Kind.SPELLED_NAMES,
    "track_extra_parameters": Kind.NAMES,
    #: the parameters that the server reports to clients, and those that the pooler restores for each client
    "reported": Kind.NAMES,
    "tracked": Kind.NAMES,
    #: the state that a client leaves on a server connection when it releases it
    "release": Kind.RELEASE,
}
#: settings of PostgreSQL that `release` can name in addition to the kinds of state
_RESET_ONE_BY_ONE = frozenset({"search_path", "intervalstyle", "default_transaction_read_only", "app.tenant"})

#: in a condition: the setting that a client sends in its startup options
OPTION = "<option>"

Value = bool | float | frozenset[str] | Reset | None


class Facts(Struct, frozen=True, kw_only=True):
    """The effective settings of a chain, and what follows from them."""

    product: str
    mode: PoolMode | None
    #: of the pooler
    version: str
    settings: Mapping[str, str]
    #: the parameters that the server reports to clients, in lower case
    reported: tuple[str, ...] = ()
    #: the setting that a client sends in its startup options; conditions name it as :data:`OPTION`
    option: str = "statement_timeout"

    def value(self, name: str) -> Value:
        """Return the value of a setting, read as its kind; None if it is unknown."""
        if name in _DERIVED:
            return _DERIVED[name](self)
        text = self.settings.get(name)
        return None if text is None else _READERS[SETTINGS[name]](text)


_READERS: Mapping[Kind, Callable[[str], Value]] = {
    Kind.FLAG: flag,
    Kind.NUMBER: number,
    Kind.NAMES: names_of,
    Kind.SPELLED_NAMES: spelled_names_of,
}
_DERIVED: Mapping[str, Callable[[Facts], Value]] = {
    "reported": lambda facts: frozenset(facts.reported),
    "tracked": lambda facts: tracked(facts.product, facts.version, facts.settings, facts.reported),
    "release": lambda facts: released(facts.product, facts.mode, facts.settings),
    "pool_size": lambda facts: float(pool_limits(facts.settings).size),
}


def facts_of(topology: Topology, evidence: TopologyEvidence) -> tuple[Facts, ...]:
    """Return the facts about the products of a running chain: those of the pooler, then those of PostgreSQL.

    The effective settings count; for a pooler that reports none, the declared ones.
    """
    server, declared = evidence.service("postgres"), topology.pooler
    found = Facts(product="postgres", mode=topology.pool_mode, version=server.version, settings={})
    if declared is None:
        return (found,)
    pooler = evidence.service("pooler")
    settings = {
        # PgBouncer has no such setting before the version that tracks statements
        "max_prepared_statements": "0",
        **declared.settings,
        **pooler.settings,
        "instances": str(declared.instances),
        "peered": str(declared.peered).lower(),
    }
    facts = Facts(
        product=declared.product,
        mode=topology.pool_mode,
        version=pooler.version,
        settings=settings,
        reported=server.reported,
    )
    return facts, found


def _is(value: Any, operand: Any) -> bool | None:
    return None if value is None else bool(value == operand)


def _compared(compare: Callable[[float, float], bool]) -> Callable[[Any, Any], bool | None]:
    return lambda value, operand: None if value is None else compare(value, operand)


def _all_known(answers: Iterable[bool | None]) -> bool | None:
    """Return whether all of several answers are true; None if that is unknown."""
    found = set(answers)
    return False if False in found else None if None in found else True


def _negated(answer: bool | None) -> bool | None:
    return None if answer is None else not answer


def _has(value: Any, names: tuple[str, ...]) -> bool | None:
    return None if value is None else {name.casefold() for name in names} <= value


def _lacks(value: Any, names: tuple[str, ...]) -> bool | None:
    return None if value is None else not {name.casefold() for name in names} & value


def _has_spelled(value: Any, names: tuple[str, ...]) -> bool | None:
    return None if value is None else set(names) <= value


def _lacks_spelled(value: Any, names: tuple[str, ...]) -> bool | None:
    return None if value is None else not set(names) & value


def _resets(value: Reset, states: tuple[str, ...]) -> bool | None:
    return _all_known(value.resets(state) for state in states)


def _keeps(value: Reset, states: tuple[str, ...]) -> bool | None:
    return _all_known(_negated(value.resets(state)) for state in states)


#: predicates by the kind of the setting; those of a list and of a state name one or several
PREDICATES: Mapping[Kind, Mapping[str, Callable[[Any, Any], bool | None]]] = {
    Kind.FLAG: {"is": _is},
    Kind.NUMBER: {
        "is": _is,
        "at_least": _compared(lambda value, operand: value >= operand),
        "below": _compared(lambda value, operand: value < operand),
    },
    Kind.NAMES: {"has": _has, "lacks": _lacks},
    Kind.SPELLED_NAMES: {"has": _has_spelled, "lacks": _lacks_spelled},
    Kind.RELEASE: {"resets": _resets, "keeps": _keeps},
}


class Condition(Struct, frozen=True, kw_only=True):
    """One condition on one setting."""

    setting: str
    predicate: str
    operand: bool | float | tuple[str, ...]

    def holds(self, facts: Facts) -> bool | None:
        """Return whether the condition holds; None if that is unknown."""
        operand = self.operand
        if isinstance(operand, tuple):
            operand = tuple(facts.option if name == OPTION else name for name in operand)
        return PREDICATES[SETTINGS[self.setting]][self.predicate](facts.value(self.setting), operand)


def read_conditions(when: Mapping[str, Any]) -> tuple[Condition, ...]:
    """Return the conditions of an entry.

    :param when: by setting, a table of predicates with their operands; or true or false for a flag.
    :raises ConfigError: for an unknown setting or predicate, or an operand of another kind.
    """
    return tuple(condition for setting, predicates in when.items() for condition in _of_setting(setting, predicates))


def all_hold(conditions: Iterable[Condition], facts: Facts) -> bool | None:
    """Return whether all conditions hold; None if that is unknown."""
    return _all_known(condition.holds(facts) for condition in conditions)


def _of_setting(setting: str, predicates: Any) -> list[Condition]:
    if setting not in SETTINGS:
        raise ConfigError(f"{setting}: unknown setting", hint=nearest(setting, SETTINGS))
    kind = SETTINGS[setting]
    if kind is Kind.FLAG and isinstance(predicates, bool):
        predicates = {"is": predicates}
    if not isinstance(predicates, Mapping) or not predicates:
        wanted = "true or false" if kind is Kind.FLAG else f"a table with {' or '.join(PREDICATES[kind])}"
        raise ConfigError(f"{setting}: found {predicates!r}, expected {wanted}")
    conditions = []
    for name, operand in predicates.items():
        if name not in PREDICATES[kind]:
            raise ConfigError(f"{setting}.{name}: unknown predicate of a {kind}", hint=nearest(name, PREDICATES[kind]))
        read = _operand(f"{setting}.{name}", kind, operand)
        conditions.append(Condition(setting=setting, predicate=name, operand=read))
    return conditions


def _operand(key: str, kind: Kind, operand: Any) -> bool | float | tuple[str, ...]:
    match kind:
        case Kind.FLAG if isinstance(operand, bool):
            return operand
        case Kind.NUMBER if isinstance(operand, int | float) and not isinstance(operand, bool):
            return float(operand)
        case Kind.NAMES | Kind.SPELLED_NAMES | Kind.RELEASE:
            names = (operand,) if isinstance(operand, str) else operand
            if isinstance(names, list | tuple) and names and all(isinstance(name, str) and name for name in names):
                return _known_states(key, tuple(names)) if kind is Kind.RELEASE else tuple(names)
    wanted = {Kind.FLAG: "true or false", Kind.NUMBER: "a number"}.get(kind, "a name or a list of names")
    raise ConfigError(f"{key}: found {operand!r}, expected {wanted}")


def _known_states(key: str, names: tuple[str, ...]) -> tuple[str, ...]:
    known = STATES | _RESET_ONE_BY_ONE
    for name in names:
        if name not in known:
            raise ConfigError(f"{key}: unknown state {name!r}", hint=nearest(name, known))
    return names
