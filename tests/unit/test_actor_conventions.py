"""Conventions of applications for their actors: what is declared, and what is read back."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.audit.actor import Actor
from harness.audit.actor_convention import NO_ACTOR, ActorConvention, IdType
from harness.checks.application import Application
from harness.database import Client
from tests.tables import each_row

if TYPE_CHECKING:
    from collections.abc import Iterator

ADA, NOBODY = Actor("user", "ada"), Actor("anonymous")
IDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1).filter(str.strip)
_SETTINGS = {"app.id": "{id}", "app.who": "{type}:{id}"}
_DECLARE = "INSERT INTO audit.who (kind, id) VALUES ({type}, {id})"


@each_row(
    ("convention", "actor", "declared"),
    [
        (ActorConvention(setting="a.b"), ADA, """SELECT set_config('a.b', '{"type":"user","id":"ada"}', true)"""),
        (ActorConvention(setting="a.b", value="id", scope="session"), ADA, "SELECT set_config('a.b', 'ada', false)"),
        (ActorConvention(setting="a.b", value="id"), NOBODY, "SELECT set_config('a.b', '', true)"),
        (
            ActorConvention(settings=_SETTINGS),
            ADA,
            "SELECT set_config('app.id', 'ada', true), set_config('app.who', 'user:ada', true)",
        ),
        (ActorConvention(declare=_DECLARE), ADA, "INSERT INTO audit.who (kind, id) VALUES ('user', 'ada')"),
        (ActorConvention(declare=_DECLARE), NOBODY, "INSERT INTO audit.who (kind, id) VALUES ('anonymous', NULL)"),
        (ActorConvention(declare="SELECT f({id})"), Actor("user", "{type}'"), "SELECT f('{type}''')"),
        (ActorConvention(declare="SELECT f({id})", ids=IdType.INTEGER), Actor("user", "42"), "SELECT f(42)"),
        (NO_ACTOR, ADA, ""),
    ],
)
def test_an_actor_is_declared_as_the_target_says(convention: ActorConvention, actor: Actor, declared: str) -> None:
    assert convention.declaration(actor) == declared


@pytest.mark.parametrize(
    ("convention", "names_type"),
    [
        (ActorConvention(setting="a.b"), True),
        (ActorConvention(setting="a.b", value="id"), False),
        (ActorConvention(settings=_SETTINGS), True),
        (ActorConvention(settings={"app.id": "{id}"}), False),
        (ActorConvention(declare=_DECLARE), True),
        (ActorConvention(declare="SELECT f({id})"), False),
        (NO_ACTOR, False),
    ],
)
def test_a_declaration_may_lack_the_type(convention: ActorConvention, names_type: bool) -> None:
    assert convention.names_type is names_type


def test_ids_of_another_type_have_that_type() -> None:
    integer, uuid = (ActorConvention(setting="a.b", ids=kind) for kind in (IdType.INTEGER, IdType.UUID))
    assert isinstance(json.loads(integer.spell(ADA))["id"], int)
    assert str(UUID(spelled := json.loads(uuid.spell(ADA))["id"])) == spelled
    assert json.loads(integer.spell(NOBODY)) == {"type": "anonymous"}


@given(first=IDS, second=IDS, kind=st.sampled_from(IdType))
def test_ids_are_known_again_and_never_confused(first: str, second: str, kind: IdType) -> None:
    convention = ActorConvention(setting="a.b", value="id", ids=kind)
    spelled = [convention.spell(Actor("user", text)) for text in (first, second)]
    assert (spelled[0] == spelled[1]) == (first == second)
    for text, native in zip((first, second), spelled, strict=True):
        assert convention.read({"type": "user", "id": native}) == {"type": "user", "id": text}


@given(text=IDS)
def test_an_integer_id_fits_into_the_server_s_integer(text: str) -> None:
    assert 0 <= int(str(ActorConvention(setting="a.b", ids=IdType.INTEGER).spell_id(text))) < 2**31


@pytest.mark.parametrize("actor", [None, "ada", 42, [], {}, {"type": "user"}, {"type": "user", "id": None}])
def test_what_is_no_actor_of_the_harness_is_read_unchanged(actor: object) -> None:
    assert ActorConvention(setting="a.b", ids=IdType.INTEGER).read(actor) == actor


def test_ends_of_uuids_stay_as_they_are() -> None:
    convention = ActorConvention(setting="a.b", value="id", ids=IdType.UUID)
    for text in (f"{'0' * 8}-0000-0000-0000-{'0' * 12}", f"{'f' * 8}-ffff-ffff-ffff-{'f' * 12}"):
        assert convention.spell(Actor("user", text)) == text
        assert convention.read({"type": "user", "id": text}) == {"type": "user", "id": text}


@pytest.mark.parametrize(
    ("setting", "read"), [("application_name", None), ("app.name", {"type": "user", "id": "application"})]
)
def test_the_name_of_the_harness_s_connection_is_nobody(setting: str, read: object) -> None:
    convention = ActorConvention(setting=setting, value="id")
    assert convention.read({"type": "user", "id": "application"}) == read
    assert convention.read({"type": "user", "id": "ada"}) == {"type": "user", "id": "ada"}


class _Recording(Client):
    """A connection that keeps its statements instead of sending them."""

    def __init__(self) -> None:
        self.statements: list[str] = []
        self.rowcount = 0

    def __del__(self, *_arguments: Any) -> None:
        pass

    def execute(self, query: Any, params: Any = None, **_options: Any) -> Any:
        text = query.decode() if isinstance(query, bytes) else str(query)
        for value in params or ():
            text = text.replace("%s", f"'{value}'", 1)
        self.statements.append(text)
        return self

    def fetchone(self) -> None:
        return None

    @contextlib.contextmanager
    def transaction(self, *_arguments: Any, **_options: Any) -> Iterator[Any]:
        self.statements.append("BEGIN")
        yield
        self.statements.append("COMMIT")


@pytest.mark.parametrize(
    ("convention", "statements"),
    [
        (ActorConvention(setting="a.b", value="id"), ["BEGIN", "SELECT set_config('a.b', 'ada', true)", "w", "COMMIT"]),
        (
            ActorConvention(setting="a.b", value="id", scope="session"),
            ["SELECT set_config('a.b', 'ada', false)", "BEGIN", "w", "COMMIT"],
        ),
        (
            ActorConvention(settings=_SETTINGS),
            [
                "BEGIN",
                "SELECT set_config('app.id', 'ada', true), set_config('app.who', 'user:ada', true)",
                "w",
                "COMMIT",
            ],
        ),
        (ActorConvention(declare="SELECT f({id})"), ["BEGIN", "SELECT f('ada')", "w", "COMMIT"]),
        (ActorConvention(declare="SELECT f({id})", scope="session"), ["SELECT f('ada')", "BEGIN", "w", "COMMIT"]),
        (NO_ACTOR, ["BEGIN", "w", "COMMIT"]),
    ],
)
def test_the_application_declares_by_each_convention(convention: ActorConvention, statements: list[str]) -> None:
    client, application = _Recording(), Application(convention)
    application.transaction = _Recording.transaction  # type: ignore[assignment]
    with application.audited(client, ADA):
        client.execute("w")
    assert client.statements == statements
    by_hand = _Recording()
    application.begin_audited(by_hand, ADA)
    assert by_hand.statements == statements[: statements.index("w")]


@pytest.mark.parametrize("scope", ["transaction", "session"])
def test_a_statement_that_no_other_may_precede_begins_the_transaction(scope: Literal["transaction", "session"]) -> None:
    client, by_hand = _Recording(), _Recording()
    application = Application(ActorConvention(declare="SELECT f({id})", scope=scope))
    application.transaction = _Recording.transaction  # type: ignore[assignment]
    with application.audited(client, ADA, first="SET TRANSACTION"):
        pass
    application.begin_audited(by_hand, ADA, first="SET TRANSACTION")
    begun = ["BEGIN", "SET TRANSACTION"]
    expected = [*begun, "SELECT f('ada')"] if scope == "transaction" else ["SELECT f('ada')", *begun]
    assert client.statements == [*expected, "COMMIT"]
    assert by_hand.statements == expected


def test_a_control_replaces_the_first_setting() -> None:
    application = Application(ActorConvention(settings=_SETTINGS))
    application.setting = "app.somebody"
    assert application.declaration(ADA) == (
        "SELECT set_config('app.somebody', 'ada', true), set_config('app.who', 'user:ada', true)"
    )
