"""Says before anything is installed whether images are cached or can be pulled, or would have to be built.

`bootstrap` runs it with the machine's own Python, so it imports the standard library only:

    python3 -m harness.engine.image_availability [TOPOLOGY …]

It exits with 0 when Docker can start the topologies soon, and with 1 and a sentence when images would be built first,
which takes minutes.

The probe asks the engine, not the registry: `GET /images/NAME/json` costs a millisecond, and for one missing image
`GET /distribution/NAME/json` makes the engine fetch a manifest with its own proxy, mirrors and credentials, in about a
second and without a layer. A request from here would go another way than the pull. An engine that cannot be asked in
this way (over TCP or SSH) was chosen on purpose, and counts as able to pull.
"""

from __future__ import annotations

import hashlib
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

NAMESPACE = "pooler-harness"

_SHIPPED = Path(__file__).resolve().parents[2] / "topologies"
_LOCAL_TIMEOUT_S = 5.0
#: a registry that needs longer would also need longer for layers than the native engine for the whole run
_REGISTRY_TIMEOUT_S = 6.0
#: the base of images that nobody publishes
_DEBIAN = "debian:{}-slim"


def offline_tag(product_folder: Path, version: str, suite: str, packages: tuple[str, ...]) -> str:
    """Return the name of the base image that is built from Debian packages; it ends in a hash of what made it."""
    dockerfile = (product_folder / "Dockerfile").read_text(encoding="utf-8")
    made_of = hashlib.sha256("\0".join((dockerfile, suite, *packages)).encode()).hexdigest()[:12]
    return f"{NAMESPACE}/{product_folder.name}-base:{version}-{made_of}"


class DockerSocket:
    """The engine's API over its Unix socket."""

    def __init__(self, path: str) -> None:
        self._path = path

    def has(self, request: str, timeout_s: float) -> bool:
        """Say whether the engine answers a request with 200 in time."""
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
    """Return why images would have to be built, or nothing when they are cached or one of them can be pulled.

    :param names: of topologies; none for those that a report runs.
    :param prefix: put before the names of images that are pulled.
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
    # one answer is enough: a registry that serves one of these images serves the others
    if engine.can_pull(missing[0]):
        return ""
    return f"the image {missing[0]} is neither cached nor can it be pulled"


def _needed(names: list[str]) -> list[tuple[str, str, str]]:
    """Return the images of topologies: to pull, as built offline, and the Debian image that it is built on.

    Those that somebody publishes come first.
    """
    products = {("hostapp", next(iter(_recipe("hostapp")["versions"])))}
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
    """Return the path of the engine's socket as the docker client finds it, or nothing where it is not a socket."""
    address = os.environ.get("DOCKER_HOST", "")
    if not address and (client := shutil.which("docker")):
        done = subprocess.run(  # noqa: S603 -- our own arguments
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
    except (OSError, ValueError, KeyError):  # a mistake in a topology file is for the harness to explain
        return 0
    if reason:
        sys.stdout.write(f"{reason}\n")
    return 1 if reason else 0


if __name__ == "__main__":
    sys.exit(main())
