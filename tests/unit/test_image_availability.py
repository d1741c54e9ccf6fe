"""The check whether Docker can start topologies soon: images are cached, or the engine can pull them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.engine import image_availability
from harness.engine.image_availability import DockerSocket, unavailable
from tests.unit.docker_socket import docker_socket

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest


def everything(_reference: str) -> bool:
    return True


def nothing(_reference: str) -> bool:
    return False


def checked(
    cached: Callable[[str], bool],
    pullable: Callable[[str], bool],
    *topologies: str,
    prefix: str = "",
    pulls: bool = True,
) -> tuple[str, list[str]]:
    with docker_socket(cached, pullable) as (path, requests):
        return unavailable(DockerSocket(str(path)), list(topologies), prefix=prefix, pulls=pulls), requests


def test_cached_images_need_no_registry() -> None:
    reason, requests = checked(everything, nothing)
    assert reason == ""
    assert "/images/postgres:17/json" in requests
    assert "/images/edoburu/pgbouncer:1.18.0/json" in requests
    assert not any(request.startswith("/distribution") for request in requests)


def test_images_that_were_built_here_count_as_cached() -> None:
    reason, _ = checked(lambda reference: reference.startswith("pooler-harness/"), nothing)
    assert reason == ""


def test_one_request_to_a_registry_is_enough() -> None:
    reason, requests = checked(nothing, everything)
    assert reason == ""
    assert [request for request in requests if request.startswith("/distribution")] == [
        "/distribution/postgres:17/json"
    ]


def test_without_images_and_registry_the_reason_names_an_image() -> None:
    assert checked(nothing, nothing)[0] == "the image postgres:17 is not cached and cannot be pulled"


def test_only_the_images_of_the_topologies_are_needed() -> None:
    def without_the_old(reference: str) -> bool:
        return "15" not in reference and "1.18" not in reference

    assert checked(without_the_old, nothing, "direct", "transaction")[0] == ""
    assert "postgres:15" in checked(without_the_old, nothing, "transaction-legacy")[0]
    assert "postgres:15" in checked(without_the_old, nothing)[0]


def test_a_prefix_is_part_of_the_names_that_are_checked() -> None:
    reason, requests = checked(lambda reference: reference.startswith("pooler-harness/"), nothing, prefix="mirror/")
    assert reason == "the image mirror/postgres:17 is not cached and cannot be pulled"
    assert "/images/mirror/postgres:17/json" in requests


def test_no_registry_is_requested_if_pulling_is_switched_off() -> None:
    reason, requests = checked(nothing, everything, pulls=False)
    assert "pulling is switched off" in reason
    assert not any(request.startswith("/distribution") for request in requests)


def test_an_engine_that_does_not_answer_has_no_images(tmp_path: Path) -> None:
    assert not DockerSocket(str(tmp_path / "gone")).has_image("postgres:17")


def test_an_engine_at_a_tcp_address_is_assumed_to_pull(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://192.0.2.1:2376")
    assert image_availability.main() == 0
    assert capsys.readouterr().out == ""


def test_the_command_line_prints_the_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with docker_socket(nothing, nothing) as (path, _):
        monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
        monkeypatch.delenv("HARNESS_IMAGE_PREFIX", raising=False)
        monkeypatch.delenv("HARNESS_PULL", raising=False)
        monkeypatch.setattr("sys.argv", ["image_availability", "direct"])
        assert image_availability.main() == 1
    assert capsys.readouterr().out == "the image postgres:17 is not cached and cannot be pulled\n"
