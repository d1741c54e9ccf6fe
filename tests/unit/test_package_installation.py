"""Packages of a subject: an installation ends with its check, and the reason of a failed one is that of the row."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from harness.checks.record import NotExercisedError
from harness.errors import EngineUnavailableError
from harness.job_engines.installation import Installed
from harness.suites import package_installation
from harness.suites.package_installation import install_packages

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.checks.context import CheckContext
    from harness.engine.virtual_environments import EnvironmentBuilder

SUBJECT = cast("Any", SimpleNamespace(title="the shop's worker"))


def context(*, is_ended: bool) -> tuple[CheckContext, dict[str, str]]:
    facts: dict[str, str] = {}
    return cast("Any", SimpleNamespace(is_ended=is_ended, notify=None, fact=facts.__setitem__)), facts


def installs(monkeypatch: pytest.MonkeyPatch, how: Callable[[EnvironmentBuilder], Installed]) -> None:
    monkeypatch.setattr(package_installation, "install", lambda _subject, _notify, builder: how(builder))


def test_an_installation_ends_with_its_check(monkeypatch: pytest.MonkeyPatch) -> None:
    def until_closed(builder: EnvironmentBuilder) -> Installed:
        assert builder.closed.wait(60), "the builder was not closed"
        raise EngineUnavailableError("the installation was stopped")

    installs(monkeypatch, until_closed)
    ctx, facts = context(is_ended=True)
    with pytest.raises(
        NotExercisedError, match="the shop's worker cannot be installed here: the installation was stopped"
    ):
        install_packages(ctx, SUBJECT)
    assert facts == {}


def test_a_failed_installation_says_why_and_what_to_try(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_builder: EnvironmentBuilder) -> Installed:
        raise EngineUnavailableError("pip failed", hint="connect to a network", detail="first line\nno route to host\n")

    installs(monkeypatch, fails)
    with pytest.raises(NotExercisedError, match="pip failed; no route to host; try: connect to a network"):
        install_packages(context(is_ended=False)[0], SUBJECT)


def test_the_versions_are_a_fact(monkeypatch: pytest.MonkeyPatch) -> None:
    done = Installed(python="python", node="", versions={"Python": "3.13.1", "alembic": "1.20.1"}, environment={})
    installs(monkeypatch, lambda _builder: done)
    ctx, facts = context(is_ended=False)
    assert install_packages(ctx, SUBJECT) is done
    assert facts == {"versions": "Python 3.13.1, alembic 1.20.1"}
