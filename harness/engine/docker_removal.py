"""Removal of containers, networks and unfinished builds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import docker.errors
import requests

from harness.engine.docker_labels import LABEL_BUILD
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from collections.abc import Callable

    from docker.api import APIClient

_REMOVAL_S = 10.0


def remove_unfinished(api: APIClient, is_chosen: Callable[[dict[str, str]], bool]) -> list[str]:
    """Remove containers and images of unfinished builds, and return what was removed.

    :param is_chosen: decides by the labels.
    """
    removed = [
        f"build container {container['Names'][0].lstrip('/')}"
        for container in api.containers(all=True, filters={"label": LABEL_BUILD})
        if is_chosen(container["Labels"]) and remove_container(api, container["Id"])
    ]
    while True:  # an image that loses its last child is the next to be found here
        images = api.images(filters={"dangling": True, "label": LABEL_BUILD})
        gone = [
            f"build image {image['Id'].removeprefix('sha256:')[:12]}"
            for image in images
            if is_chosen(image["Labels"] or {}) and _remove_image(api, image["Id"])
        ]
        removed += gone
        if not gone:
            return removed


def remove_container(api: APIClient, container: str) -> bool:
    """Remove a container, and return whether it was this call that did; when it returns, it is gone."""
    try:
        api.remove_container(container, force=True, v=True)
    except docker.errors.NotFound:
        return False
    except docker.errors.APIError as error:
        if error.status_code != requests.codes.conflict:
            raise
        # another run is removing it at this moment

        def gone() -> bool:
            try:
                api.inspect_container(container)
            except docker.errors.NotFound:
                return False
            raise NotYet("it is still there")

        return poll(gone, what=f"the removal of container {container[:12]}", deadline_s=_REMOVAL_S)
    return True


def remove_network(api: APIClient, network: str) -> bool:
    """Remove a network, and return whether it was this call that did."""

    def remove() -> bool:
        try:
            api.remove_network(network)
        except docker.errors.NotFound:
            return False
        except docker.errors.APIError as error:
            # a container that another run is removing may hold an endpoint a moment longer
            if error.status_code in {requests.codes.forbidden, requests.codes.conflict}:
                raise NotYet(str(error.explanation)) from None
            raise
        return True

    return poll(remove, what=f"the removal of network {network[:12]}", deadline_s=_REMOVAL_S)


def _remove_image(api: APIClient, image: str) -> bool:
    try:
        api.remove_image(image)
    except docker.errors.APIError as error:
        # gone already, or a build that is alive has taken it for its base
        if error.status_code in {requests.codes.not_found, requests.codes.conflict}:
            return False
        raise
    return True
