"""What a run removes of builds while other runs remove the same, by a Docker whose answers are made up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import docker.errors
import pytest

from harness.engine.docker_labels import LABEL_BUILD
from harness.engine.docker_removal import remove_unfinished

if TYPE_CHECKING:
    from docker.api import APIClient

VANISHED = "unrecognized image ID sha256:0123456789ab"
LABELS = {LABEL_BUILD: "x"}


def refusal(said: str, status: int = 500) -> docker.errors.APIError:
    response = SimpleNamespace(status_code=status, url="/images", reason="Server Error")
    return docker.errors.APIError("Server Error", cast("Any", response), said)


class Docker:
    """Answers to lists of images in their order, and refusals of removals by the image."""

    def __init__(self, *lists: list[str] | Exception, refused: dict[str, Exception] | None = None) -> None:
        self._lists = list(lists)
        self._refused = refused or {}
        self.removed: list[str] = []

    def version(self, **_: object) -> dict[str, object]:
        return {}

    def containers(self, **_: object) -> list[dict[str, object]]:
        return []

    def images(self, **_: object) -> list[dict[str, object]]:
        found = self._lists.pop(0)
        if isinstance(found, Exception):
            raise found
        return [{"Id": f"sha256:{name}", "Labels": LABELS} for name in found]

    def remove_image(self, image: str) -> None:
        if error := self._refused.get(image.removeprefix("sha256:")):
            raise error
        self.removed.append(image)


def removed_from(api: Docker) -> list[str]:
    return remove_unfinished(cast("APIClient", api), lambda _: True)


def test_a_list_in_which_an_image_has_vanished_is_asked_for_again() -> None:
    assert removed_from(Docker(refusal(VANISHED), ["a"], [])) == ["build image a"]


@pytest.mark.parametrize("error", [refusal(VANISHED), refusal("no such image", 404), refusal("in use", 409)])
def test_an_image_that_another_run_removes_or_uses_is_left_out(error: Exception) -> None:
    assert removed_from(Docker(["a", "b"], [], refused={"a": error})) == ["build image b"]


@pytest.mark.parametrize("api", [Docker(refusal("disk failed")), Docker(["a"], refused={"a": refusal("disk failed")})])
def test_another_error_is_raised(api: Docker) -> None:
    with pytest.raises(docker.errors.APIError, match="disk failed"):
        removed_from(api)
