"""The prediction of where a careless actor ends up, from what the pooler resets."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
from msgspec.structs import replace

from harness.checks.record import NotExercisedError
from harness.suites.actor import misuse
from tests.unit.made_up import stood

if TYPE_CHECKING:
    from harness.checks.context import CheckContext

ALWAYS = {"server_reset_query_always": "1"}


def predicted(topology: str, settings: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Return the predicted actors of the client's own write, and of the next one on the server connection."""
    monkeypatch.setattr(misuse, "ends_with_client", lambda _: False)
    evidence = stood(topology)
    services = tuple(
        replace(service, settings=service.settings | settings) if service.name == "pooler" else service
        for service in evidence.services
    )
    evidence = replace(evidence, services=services)
    ctx = SimpleNamespace(
        mode=evidence.declared.pool_mode,
        topology=evidence.declared,
        lab=SimpleNamespace(evidence=evidence),
        application=SimpleNamespace(setting="audit.actor_ref"),
    )
    return misuse._predicted(cast("CheckContext", ctx))[:2]


@pytest.mark.parametrize(
    ("topology", "settings", "actors"),
    [
        ("direct", {}, ("ada", "ada")),
        ("transaction", {}, ("ada", "ada")),
        ("transaction", ALWAYS, ("nobody", "nobody")),
        ("transaction", ALWAYS | {"server_reset_query": "DEALLOCATE ALL"}, ("ada", "ada")),
        ("transaction", ALWAYS | {"server_reset_query": "RESET audit.actor_ref"}, ("nobody", "nobody")),
        ("session", {}, ("ada", "nobody")),
        ("session", {"server_reset_query": ""}, ("ada", "ada")),
        ("session", {"server_reset_query": "RESET ALL"}, ("ada", "nobody")),
    ],
)
def test_the_reset_query_decides_who_gets_an_actor_that_was_set_for_the_session(
    topology: str, settings: dict[str, str], actors: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert predicted(topology, settings, monkeypatch) == actors


def test_a_reset_query_that_is_not_understood_gives_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotExercisedError, match="reset query"):
        predicted("session", {"server_reset_query": "SELECT my_reset()"}, monkeypatch)
