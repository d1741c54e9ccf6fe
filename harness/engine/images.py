"""Images: use the cached one, else pull it, else build it.

A *base* image holds the program: a published image (`postgres:17`), or one that is built offline from Debian packages.
A *prepared* image adds a thin layer that makes a service start fast, such as PostgreSQL's initialised cluster. Built
images are cached under a name that ends in a hash of their sources.
"""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any

import docker.errors

from harness import places
from harness.engine import debian, pip_access
from harness.engine.build_failures import wait_for
from harness.engine.builds import ImageBuilder
from harness.engine.docker_labels import LABEL_VERSION
from harness.engine.image_availability import NAMESPACE, dockerfile_of, offline_tag
from harness.engine.made_once import named_by, take
from harness.engine.protocol import Origin
from harness.engine.recipes import files_beside, load_recipe, recipe_folder
from harness.errors import ImageUnavailableError
from harness.events import ImageProgress, Listener, Notice, making_image
from harness.versions import version_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docker.api import APIClient

    from harness.engine.protocol import Wanted
    from harness.engine.recipes import ImagePolicy, RecipeVersion

#: a product with this file installs packages with pip, which then needs this machine's access to the package index
_REQUIREMENTS = "requirements.txt"


class Images:
    """Prepares the images of one product on one Docker engine.

    Several threads and processes may do so at the same time. An image that several of them need is built by the first,
    and the others wait for it.
    """

    def __init__(
        self, api: APIClient, policy: ImagePolicy, listener: Listener, builder: ImageBuilder | None = None
    ) -> None:
        self._api = api
        self._policy = policy
        self._notify = listener
        self._builder = builder or ImageBuilder(api, listener)

    def prepared(self, wanted: Wanted) -> tuple[str, Origin]:
        """Return the name and the origin of the prepared image, which is built if necessary.

        :raises ImageUnavailableError: when it can be neither pulled nor built.
        """
        recipe, version = load_recipe(wanted)
        try:
            reference, base = self._base(wanted, version)
            dockerfile = dockerfile_of(recipe_folder(wanted.product), "prepared.Dockerfile")
            files = files_beside(wanted.product)
            made_of = named_by(dockerfile, base["Id"], *(part for file in files.items() for part in file))
            tag = f"{NAMESPACE}/{wanted.product}:{wanted.version}-{made_of}"
            image = self._inspect(tag)
            if image is None:
                with self._only_builder(tag):
                    image = self._inspect(tag) or self._prepare(tag, dockerfile, reference, recipe.program, files)
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
            # an image that was built here saves later runs a failing pull; a named mirror is always used
            if not chosen and not self._policy.prefix and (found := self._inspect(offline)):
                return offline, found
        reason = "pulling is switched off (pull policy never)"
        if self._policy.pull != "never":
            try:
                return reference, self._pull(reference)
            except docker.errors.DockerException as error:
                reason = f"the pull failed: {getattr(error, 'explanation', None) or error}"
        if chosen or self._policy.pull == "always":
            raise ImageUnavailableError(
                f"the image {reference} is missing, and {reason}",
                hint=f"docker pull {reference}, or remove the override so that it is built from Debian packages"
                if chosen
                else f"docker pull {reference}, or use --pull missing so that it is built from Debian packages",
            )
        self._notify(Notice(f"the image {reference} is missing, and {reason}; building it from Debian packages"))
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
            raise ImageUnavailableError(f"invalid image reference: {error.explanation}", where=reference) from None
        return found

    def _pull(self, reference: str) -> dict[str, Any]:
        name, _, tag = reference.partition("@")
        if not tag:
            name, _, tag = reference.rpartition(":")
            if not name or "/" in tag:
                name, tag = reference, "latest"
        with making_image(self._notify, reference, doing="pulling", done="pulled"):
            for line in self._api.pull(name, tag=tag, stream=True, decode=True):
                self._builder.check(f"the pull of {reference}")
                if "error" in line:
                    raise docker.errors.DockerException(line["error"])
                if "Pull complete" in (status := line.get("status", "")):
                    self._notify(ImageProgress(reference, f"{line.get('id', '')} {status}".strip()))
            found = self._inspect(reference)
            if found is None:
                raise docker.errors.DockerException("the engine does not know the image that it pulled")
        return found

    def _build_offline(self, tag: str, wanted: Wanted, version: RecipeVersion) -> dict[str, Any]:
        base = self._debian(version.suite)
        dockerfile = dockerfile_of(recipe_folder(wanted.product), "Dockerfile")
        arguments = {"BASE": base, "VERSION": wanted.version, "PACKAGES": " ".join(version.packages)}
        with making_image(self._notify, tag):
            return self._built(tag, self._builder.build(tag, dockerfile, arguments))

    def _prepare(self, tag: str, dockerfile: str, base: str, program: str, files: dict[str, str]) -> dict[str, Any]:
        """Build the prepared image, and label it with the exact version, which only the program knows."""
        context, hint = dict(files), ""
        if _REQUIREMENTS in context:
            context |= pip_access.pip_files()
            hint = pip_access.HINT
        with making_image(self._notify, tag):
            unlabelled = self._builder.build(tag, dockerfile, {"BASE": base}, context, finished=False, hint=hint)
            output = self._builder.output_of(unlabelled, f"{program} --version")
            version = version_in(output)
            labelled = f"FROM {unlabelled}\nLABEL {LABEL_VERSION}={version}\n"
            return self._built(tag, self._builder.build(tag, labelled, {}, only_labels=True))

    def _built(self, tag: str, image: str) -> dict[str, Any]:
        found = self._inspect(tag)
        if found is None:
            raise ImageUnavailableError(f"the image {image} was built as {tag}, but the engine does not know that name")
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
            builder, slot = self._builder, self._builder.slot(f"the build of {own}")
            doing, done = "making it with debootstrap, which takes about half a minute", "made with debootstrap"
            with (
                making_image(self._notify, own, doing=doing, done=done),
                debian.bare_system(suite, builder.owner, builder.cancelled, slot) as root,
            ):
                builder.import_system(own, debian.archive(root))
        return own

    @contextlib.contextmanager
    def _only_builder(self, tag: str) -> Iterator[None]:
        """Hold the lock of an image, so that one thread of one process on this machine builds it."""
        folder = places.cache() / "locks"
        folder.mkdir(exist_ok=True)
        with (folder / named_by(tag)).open("w") as lock:
            locked = partial(take, lock, "another process builds it")
            wait_for(locked, what=f"the build of {tag}", cancelled=self._builder.cancelled)
            yield
