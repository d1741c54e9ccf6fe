"""Checks before the installation whether images are cached or can be pulled; otherwise they would be built.

`bootstrap` runs this module with the machine's own Python, so it imports the standard library only:

    python3 -m harness.engine.image_availability [TOPOLOGY …]

The exit code is 0 if Docker can start the topologies soon. It is 1, with a sentence on stdout, if images would be
built first, which takes minutes.

The module asks the Docker engine, not the registry, because a request from here would take another route than the
pull. `GET /images/NAME/json` takes a millisecond. For one missing image, `GET /distribution/NAME/json` makes the
engine fetch the manifest with its own proxy, mirrors and credentials; that takes about a second and downloads no layer.
An engine at a TCP or SSH address was chosen on purpose, and is assumed to be able to pull.
"""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import quote

from harness.engine.made_once import named_by

NAMESPACE = "pooler-harness"

_SHIPPED = Path(__file__).resolve().parents[2] / "topologies"
_LOCAL_TIMEOUT_S = 5.0
#: with a slower registry, a pull would take longer than a whole run on the native engine
_REGISTRY_TIMEOUT_S = 6.0
#: the base of images that are not published
_DEBIAN = "debian:{}-slim"


def dockerfile_of(product_folder: Path, name: str) -> str:
    """Return a product's Dockerfile, or the one of all products without their own.

    :param name: `Dockerfile` builds the base image offline, `prepared.Dockerfile` what runs.
    """
    own = product_folder / name
    return (own if own.exists() else product_folder.parent / name).read_text(encoding="utf-8")


def offline_tag(product_folder: Path, version: str, suite: str, packages: tuple[str, ...]) -> str:
    """Return the name of the base image that is built from Debian packages; it ends in a hash of its sources."""
    dockerfile = dockerfile_of(product_folder, "Dockerfile")
    made_of = named_by(dockerfile, suite, *packages)
    return f"{NAMESPACE}/{product_folder.name}-base:{version}-{made_of}"


class DockerSocket:
    """The Docker engine's API over its Unix socket."""

    def __init__(self, path: str) -> None:
        self._path = path

    def has(self, request: str, timeout_s: float) -> bool:
        """Return whether the engine answers a GET request with 200 before the timeout."""
        connection = http.client.HTTPConnection("localhost", timeout=timeout_s)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(timeout_s)
        try:
            connection.sock.connect(self._path)
            connection.request("GET", request)
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def has_image(self, reference: str) -> bool:
        return self.has(f"/images/{quote(reference)}/json", _LOCAL_TIMEOUT_S)

    def can_pull(self, reference: str) -> bool:
        return self.has(f"/distribution/{quote(reference)}/json", _REGISTRY_TIMEOUT_S)


def unavailable(engine: DockerSocket, names: list[str], *, prefix: str, pulls: bool) -> str:
    """Return the reason why images would have to be built; "" if all are cached, or a missing one can be pulled.

    :param names: of topologies; empty for the topologies of a report.
    :param prefix: the prefix of the names of images that are pulled, such as a registry's host name.
    :param pulls: whether pulling is allowed.
    """
    missing = []
    for image, offline, debian in _needed(names):
        cached = (f"{prefix}{image}" if image else "", "" if prefix else offline)
        if not any(engine.has_image(reference) for reference in cached if reference):
            missing.append(f"{prefix}{image or debian}")
    if not missing:
        return ""
    if not pulls:
        return f"the image {missing[0]} is not cached, and pulling is switched off"
    # one request is enough: a registry that serves one of these images serves the others
    if engine.can_pull(missing[0]):
        return ""
    return f"the image {missing[0]} is not cached and cannot be pulled"


def _needed(names: list[str]) -> list[tuple[str, str, str]]:
    """Return three names for each image of the topologies: to pull, when built offline, and of its Debian base.

    Published images come first; the first name is empty for the others.
    """
    # what checks start next to every topology
    products = {(product, next(iter(_recipe(product)["versions"]))) for product in ("hostapp", "link")}
    for path in sorted(_SHIPPED.glob("*.toml")):
        topology = tomllib.loads(path.read_text(encoding="utf-8"))
        if path.stem in names or (not names and not topology.get("on_demand", False)):
            products.add(("postgres", topology["postgres"]["version"]))
            if pooler := topology.get("pooler"):
                products.add((pooler["product"], pooler["version"]))
    found = set()
    for product, version in products:
        recipe = _recipe(product)["versions"][version]
        offline = offline_tag(_SHIPPED / "images" / product, version, recipe["suite"], tuple(recipe["packages"]))
        found.add((recipe.get("image", ""), offline, _DEBIAN.format(recipe["suite"])))
    return sorted(found, reverse=True)


def _recipe(product: str) -> dict[str, Any]:
    return tomllib.loads((_SHIPPED / "images" / product / "recipe.toml").read_text(encoding="utf-8"))


def socket_path() -> str:
    """Return the path of the engine's socket as the docker client finds it; "" if the address is not a Unix socket."""
    address = os.environ.get("DOCKER_HOST", "")
    if not address and (client := shutil.which("docker")):
        done = subprocess.run(  # noqa: S603 -- fixed arguments
            [client, "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        address = done.stdout.strip()
    address = address or "unix:///var/run/docker.sock"
    return address.removeprefix("unix://") if address.startswith("unix://") else ""


def main() -> int:
    path = socket_path()
    if not path:
        return 0
    try:
        reason = unavailable(
            DockerSocket(path),
            sys.argv[1:],
            prefix=os.environ.get("HARNESS_IMAGE_PREFIX", ""),
            pulls=os.environ.get("HARNESS_PULL") != "never",
        )
    except (OSError, ValueError, KeyError):  # a mistake in a topology file; the harness reports it later
        return 0
    if reason:
        sys.stdout.write(f"{reason}\n")
    return 1 if reason else 0


if __name__ == "__main__":
    sys.exit(main())
