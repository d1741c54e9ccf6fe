"""Removal of containers, networks and unfinished builds; another run may remove the same objects concurrently."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import docker.errors
import requests

from harness.engine.docker_labels import LABEL_BUILD
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from collections.abc import Callable

    from docker.api import APIClient

_REMOVAL_S = 10.0
#: in Docker's answer with status 500, when another run has removed an image a moment before
_UNKNOWN = "unrecognized image ID"


def remove_unfinished(api: APIClient, is_chosen: Callable[[dict[str, str]], bool]) -> list[str]:
    """Remove containers and images of unfinished builds, and return a description of each.

    :param is_chosen: decides by the labels of an object whether it is removed.
    """
    removed = [
        f"build container {container['Names'][0].lstrip('/')}"
        for container in api.containers(all=True, filters={"label": LABEL_BUILD})
        if is_chosen(container["Labels"]) and remove_container(api, container["Id"])
    ]
    filters: dict[str, str | bool] = {"label": LABEL_BUILD}
    if not _is_podman(api):  # Podman gives a name to every imported image
        filters["dangling"] = True  # much faster: Docker reads every layer of the images with a name
    while True:  # removing an image makes its parent dangling, which the next round finds
        images = _images(api, filters)  # in finished images the label is empty
        gone = [
            f"build image {image['Id'].removeprefix('sha256:')[:12]}"
            for image in images
            if (image["Labels"] or {}).get(LABEL_BUILD)
            and is_chosen(image["Labels"])
            and _remove_image(api, image["Id"])
        ]
        removed += gone
        if not gone:
            return removed


def _is_podman(api: APIClient) -> bool:
    return any("Podman" in str(part.get("Name")) for part in api.version(api_version=False).get("Components") or ())


def remove_container(api: APIClient, container: str) -> bool:
    """Remove a container and wait until it is gone; return whether this call removed it."""
    try:
        api.remove_container(container, force=True, v=True)
    except docker.errors.NotFound:
        return False
    except docker.errors.APIError as error:
        if error.status_code != requests.codes.conflict:
            raise
        # another run is removing it

        def gone() -> bool:
            try:
                api.inspect_container(container)
            except docker.errors.NotFound:
                return False
            raise NotYet("it still exists")

        return poll(gone, what=f"the removal of container {container[:12]}", deadline_s=_REMOVAL_S)
    return True


def remove_network(api: APIClient, network: str) -> bool:
    """Remove a network, and return whether this call removed it."""

    def remove() -> bool:
        try:
            api.remove_network(network)
        except docker.errors.NotFound:
            return False
        except docker.errors.APIError as error:
            # a container that another run is removing may still be attached
            if error.status_code in {requests.codes.forbidden, requests.codes.conflict}:
                raise NotYet(str(error.explanation)) from None
            raise
        return True

    return poll(remove, what=f"the removal of network {network[:12]}", deadline_s=_REMOVAL_S)


def _images(api: APIClient, filters: dict[str, str | bool]) -> list[dict[str, Any]]:
    """Return the images that the filters match. Docker fails when one of them vanishes meanwhile, so it is repeated."""

    def listed() -> list[dict[str, Any]]:
        try:
            return list(api.images(filters=filters))
        except docker.errors.APIError as error:
            if _vanished(error):
                raise NotYet(str(error)) from None
            raise

    return poll(listed, what="a list of images", deadline_s=_REMOVAL_S)


def _vanished(error: docker.errors.APIError) -> bool:
    return _UNKNOWN in str(error.explanation)


def _remove_image(api: APIClient, image: str) -> bool:
    try:
        api.remove_image(image)
    except docker.errors.APIError as error:
        # already removed, or the base of a build that is running
        if error.status_code in {requests.codes.not_found, requests.codes.conflict} or _vanished(error):
            return False
        raise
    return True
