"""Images: have it, else pull it, else build it.

A *base* image holds the program: the one that users know (`postgres:17`), or one built offline from
Debian packages. A *prepared* image is a thin layer on it, made here, that starts fast: PostgreSQL's
cluster is initialised in it. Both are cached under a name that ends in a hash of what made them.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
from typing import TYPE_CHECKING, Any, Literal

import docker.errors
from msgspec import Struct

from harness import config, places
from harness.engine import debian, pip_access
from harness.engine.build_failures import wait_for
from harness.engine.builds import ImageBuilder
from harness.engine.docker_labels import LABEL_VERSION
from harness.engine.image_availability import NAMESPACE, offline_tag
from harness.engine.protocol import Origin, Wanted
from harness.errors import ConfigError, ImageUnavailableError
from harness.events import ImageProgress, Listener, Notice
from harness.model import PoolMode
from harness.waiting import NotYet

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from docker.api import APIClient

#: files beside the Dockerfile; this one is for pip, which then has to be told how packages are reached from here
_REQUIREMENTS = "requirements.txt"


class ImagePolicy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How images are found. A prefix is put before every name that is not overridden."""

    prefix: str = ""
    pull: Literal["missing", "never", "always"] = "missing"
    #: product, or product:version, to image reference
    override: dict[str, str] = {}


class RecipeVersion(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    #: to pull; empty where nobody publishes one that could be pinned
    image: str = ""
    suite: str
    packages: tuple[str, ...]


class Recipe(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`topologies/images/<product>/recipe.toml`."""

    program: str
    #: the product's own spelling of its name
    title: str
    #: that it listens on in a container
    port: int
    #: ends the server at once, and in order
    stop_signal: str
    #: that it knows, for a pooler
    pool_modes: tuple[PoolMode, ...] = ()
    versions: dict[str, RecipeVersion]


def recipe_folder(product: str) -> Path:
    return places.TOPOLOGIES / "images" / product


def load_product(product: str) -> Recipe:
    """Return the recipe of a product.

    :raises ConfigError: when there is none.
    """
    if product not in products():
        raise ConfigError(f"there is no product {product!r}; known: {', '.join(products())}")
    return config.load(recipe_folder(product) / "recipe.toml", Recipe)


def products() -> list[str]:
    """Return the products that there is a recipe of."""
    return sorted(path.parent.name for path in (places.TOPOLOGIES / "images").glob("*/recipe.toml"))


def load_recipe(wanted: Wanted) -> tuple[Recipe, RecipeVersion]:
    """Return the recipe of a product and of its version.

    :raises ConfigError: when the version has none.
    """
    path = recipe_folder(wanted.product) / "recipe.toml"
    recipe = load_product(wanted.product)
    if wanted.version not in recipe.versions:
        raise ConfigError(
            f"versions: there is no {wanted.product} {wanted.version}; known: {', '.join(sorted(recipe.versions))}",
            where=str(path),
            hint=f'add a [versions."{wanted.version}"] table to this file, or choose a known version',
        )
    return recipe, recipe.versions[wanted.version]


def files_beside(product: str) -> dict[str, str]:
    """Return the files that the prepared image of a product is also made of, by name."""
    own = {"recipe.toml", "Dockerfile", "prepared.Dockerfile"}
    paths = sorted(path for path in recipe_folder(product).iterdir() if path.is_file() and path.name not in own)
    return {path.name: path.read_text(encoding="utf-8") for path in paths}


class Images:
    """Makes one product's images ready on one Docker engine.

    Several threads and processes may do so at the same time: an image that two of them need is made by one, and the
    other one waits for it.
    """

    def __init__(
        self, api: APIClient, policy: ImagePolicy, listener: Listener, builder: ImageBuilder | None = None
    ) -> None:
        self._api = api
        self._policy = policy
        self._notify = listener
        self._builder = builder or ImageBuilder(api, listener)

    def prepared(self, wanted: Wanted) -> tuple[str, Origin]:
        """Return the reference of the prepared image and where it comes from, making it if needed.

        :raises ImageUnavailableError: saying what was tried.
        """
        recipe, version = load_recipe(wanted)
        try:
            reference, base = self._base(wanted, version)
            dockerfile = (recipe_folder(wanted.product) / "prepared.Dockerfile").read_text(encoding="utf-8")
            beside = files_beside(wanted.product)
            made_of = _hash(dockerfile, base["Id"], *(part for file in beside.items() for part in file))
            tag = f"{NAMESPACE}/{wanted.product}:{wanted.version}-{made_of}"
            image = self._inspect(tag)
            if image is None:
                with self._only_builder(tag):
                    image = self._inspect(tag) or self._prepare(tag, dockerfile, reference, recipe.program, beside)
        finally:
            self._builder.clean()
        labels = image["Config"].get("Labels") or {}
        digests = base.get("RepoDigests") or []
        return tag, Origin(
            product=wanted.product,
            version=labels.get(LABEL_VERSION, ""),
            reference=digests[0] if digests else f"{reference}@{base['Id']}",
            note="" if digests else "image built offline from Debian packages" if NAMESPACE in reference else "",
        )

    def _base(self, wanted: Wanted, version: RecipeVersion) -> tuple[str, dict[str, Any]]:
        override = self._policy.override
        chosen = override.get(f"{wanted.product}:{wanted.version}") or override.get(wanted.product)
        reference = chosen or self._policy.prefix + version.image
        offline = self._offline_tag(wanted, version)
        if not reference or reference == self._policy.prefix:
            return offline, self._inspect(offline) or self._built_offline(offline, wanted, version)
        if self._policy.pull != "always":
            if found := self._inspect(reference):
                return reference, found
            # once built, it spares every later run a pull that cannot succeed; who names a mirror wants the mirror
            if not chosen and not self._policy.prefix and (found := self._inspect(offline)):
                return offline, found
        refused = "pulling is switched off (pull policy never)"
        if self._policy.pull != "never":
            try:
                return reference, self._pull(reference)
            except docker.errors.DockerException as error:
                refused = f"the pull was refused: {getattr(error, 'explanation', None) or error}"
        if chosen or self._policy.pull == "always":
            raise ImageUnavailableError(
                f"the image {reference} is not here, and {refused}",
                hint=f"docker pull {reference}, or leave the override out to have it built from Debian packages",
            )
        self._notify(Notice(f"{reference} is not here, and {refused}"))
        return offline, self._built_offline(offline, wanted, version)

    def _built_offline(self, tag: str, wanted: Wanted, version: RecipeVersion) -> dict[str, Any]:
        with self._only_builder(tag):
            return self._inspect(tag) or self._build_offline(tag, wanted, version)

    def _offline_tag(self, wanted: Wanted, version: RecipeVersion) -> str:
        return offline_tag(recipe_folder(wanted.product), wanted.version, version.suite, version.packages)

    def _inspect(self, reference: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = self._api.inspect_image(reference)  # type: ignore[no-untyped-call]
        except docker.errors.ImageNotFound:
            return None
        except docker.errors.APIError as error:
            raise ImageUnavailableError(f"not an image reference: {error.explanation}", where=reference) from None
        return found

    def _pull(self, reference: str) -> dict[str, Any]:
        name, _, tag = reference.partition("@")
        if not tag:
            name, _, tag = reference.rpartition(":")
            if not name or "/" in tag:
                name, tag = reference, "latest"
        self._notify(ImageProgress(reference, "pulling"))
        seen: set[str] = set()
        for line in self._api.pull(name, tag=tag, stream=True, decode=True):
            self._builder.check(f"the pull of {reference}")
            if "error" in line:
                raise docker.errors.DockerException(line["error"])
            if (status := line.get("status", "")) and status not in seen and "Pull complete" in status:
                self._notify(ImageProgress(reference, f"{line.get('id', '')} {status}".strip()))
        found = self._inspect(reference)
        if found is None:
            raise docker.errors.DockerException("the engine pulled it and does not know it")
        return found

    def _build_offline(self, tag: str, wanted: Wanted, version: RecipeVersion) -> dict[str, Any]:
        base = self._debian(version.suite)
        dockerfile = (recipe_folder(wanted.product) / "Dockerfile").read_text(encoding="utf-8")
        arguments = {"BASE": base, "VERSION": wanted.version, "PACKAGES": " ".join(version.packages)}
        return self._built(tag, self._builder.build(tag, dockerfile, arguments))

    def _prepare(self, tag: str, dockerfile: str, base: str, program: str, beside: dict[str, str]) -> dict[str, Any]:
        """Build the prepared image; only the program itself knows its exact version."""
        context, hint = dict(beside), ""
        if _REQUIREMENTS in context:
            context |= pip_access.pip_files()
            hint = pip_access.HINT
        unlabelled = self._builder.build(tag, dockerfile, {"BASE": base}, context, finished=False, hint=hint)
        said = self._builder.output_of(unlabelled, f"{program} --version")
        version = next((word for word in said.split() if word[:1].isdigit()), "")
        labelled = f"FROM {unlabelled}\nLABEL {LABEL_VERSION}={version}\n"
        return self._built(tag, self._builder.build(tag, labelled, {}, only_labels=True))

    def _built(self, tag: str, image: str) -> dict[str, Any]:
        found = self._inspect(tag)
        if found is None:
            raise ImageUnavailableError(f"the image {image} was built as {tag}, and the engine does not know that name")
        return found

    def _debian(self, suite: str) -> str:
        own = f"{NAMESPACE}/debian:{suite}-{debian.fingerprint()}"
        with self._only_builder(own):
            for reference in (own, f"debian:{suite}-slim", f"debian:{suite}"):
                if self._inspect(reference):
                    return reference
            if self._policy.pull != "never":
                with contextlib.suppress(docker.errors.DockerException):
                    reference = f"{self._policy.prefix}debian:{suite}-slim"
                    self._pull(reference)
                    return reference
            self._notify(
                ImageProgress(own, f"making a bare Debian {suite} with debootstrap; takes about half a minute")
            )
            builder, slot = self._builder, self._builder.slot(f"the build of {own}")
            with debian.bare_system(suite, builder.owner, builder.cancelled, slot) as root:
                builder.import_system(own, debian.archive(root))
        return own

    @contextlib.contextmanager
    def _only_builder(self, tag: str) -> Iterator[None]:
        """Let one thread of one process on this machine make an image; the others wait, and find it made."""
        folder = places.cache() / "locks"
        folder.mkdir(exist_ok=True)
        with (folder / _hash(tag)).open("w") as lock:

            def locked() -> None:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise NotYet("another one builds it") from None

            wait_for(locked, what=f"the build of {tag}", cancelled=self._builder.cancelled)
            yield


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
