"""Images: have it, else pull it, else build it.

A *base* image holds the program: the one that users know (`postgres:17`), or one built offline from
Debian packages. A *prepared* image is a thin layer on it, made here, that starts fast: PostgreSQL's
cluster is initialised in it. Both are cached under a name that ends in a hash of what made them.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

import docker.errors
from msgspec import Struct

from harness import config, places
from harness.engine import pip_access
from harness.engine.image_availability import NAMESPACE, offline_tag
from harness.engine.protocol import Origin, Wanted
from harness.errors import ConfigError, ImageUnavailableError
from harness.events import ImageProgress, Listener, Notice
from harness.model import PoolMode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docker.api import APIClient

LABEL_TOOL = "pooler-harness"
LABEL_VERSION = "pooler-harness.version"

#: apt's own default; HARNESS_DEBIAN_MIRROR names another
_MIRROR = "http://deb.debian.org/debian"
#: files beside the Dockerfile; this one is for pip, which then has to be told how packages are reached from here
_REQUIREMENTS = "requirements.txt"
#: what a Dockerfile labels a stage with that must not stay
_BUILD_STAGE = "build-stage"
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


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
    """Makes images ready on one Docker engine."""

    def __init__(self, api: APIClient, policy: ImagePolicy, listener: Listener) -> None:
        self._api = api
        self._policy = policy
        self._tell = listener

    def prepared(self, wanted: Wanted) -> tuple[str, Origin]:
        """Return the reference of the prepared image and where it comes from, making it if needed.

        :raises ImageUnavailableError: saying what was tried.
        """
        recipe, version = load_recipe(wanted)
        reference, base = self._base(wanted, version)
        dockerfile = (recipe_folder(wanted.product) / "prepared.Dockerfile").read_text(encoding="utf-8")
        beside = files_beside(wanted.product)
        made_of = _hash(dockerfile, base["Id"], *(part for each in beside.items() for part in each))
        tag = f"{NAMESPACE}/{wanted.product}:{wanted.version}-{made_of}"
        image = self._inspect(tag)
        if image is None:
            with _one_builder():
                image = self._inspect(tag) or self._prepare(tag, dockerfile, reference, recipe.program, beside)
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
        self._tell(Notice(f"{reference} is not here, and {refused}"))
        return offline, self._built_offline(offline, wanted, version)

    def _built_offline(self, tag: str, wanted: Wanted, version: RecipeVersion) -> dict[str, Any]:
        with _one_builder():
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
        self._tell(ImageProgress(reference, "pulling"))
        seen: set[str] = set()
        for line in self._api.pull(name, tag=tag, stream=True, decode=True):
            if "error" in line:
                raise docker.errors.DockerException(line["error"])
            if (status := line.get("status", "")) and status not in seen and "Pull complete" in status:
                self._tell(ImageProgress(reference, f"{line.get('id', '')} {status}".strip()))
        found = self._inspect(reference)
        if found is None:
            raise docker.errors.DockerException("the engine pulled it and does not know it")
        return found

    def _build_offline(self, tag: str, wanted: Wanted, version: RecipeVersion) -> dict[str, Any]:
        base = self._debian(version.suite)
        dockerfile = (recipe_folder(wanted.product) / "Dockerfile").read_text(encoding="utf-8")
        return self._build(
            tag, dockerfile, {"BASE": base, "VERSION": wanted.version, "PACKAGES": " ".join(version.packages)}
        )

    def _prepare(self, tag: str, dockerfile: str, base: str, program: str, beside: dict[str, str]) -> dict[str, Any]:
        """Build the prepared image; what version the program is, only the program can tell."""
        try:
            unlabelled = self._build(f"{tag}-unlabelled", dockerfile, {"BASE": base}, beside)
        finally:
            self._forget_stages()
        container = self._api.create_container(
            unlabelled["Id"], command=["sh", "-c", f"{program} --version"], labels={LABEL_TOOL: "build"}
        )["Id"]
        try:
            self._api.start(container)
            self._api.wait(container, timeout=60)
            said = self._api.logs(container).decode(errors="replace")
        finally:
            self._api.remove_container(container, force=True, v=True)
        version = next((word for word in said.split() if word[:1].isdigit()), "")
        labelled = self._build(tag, f"FROM {unlabelled['Id']}\nLABEL {LABEL_VERSION}={version}\n", {})
        with contextlib.suppress(docker.errors.APIError):
            self._api.remove_image(f"{tag}-unlabelled", noprune=True)
        return labelled

    def _forget_stages(self) -> None:
        """Remove the layers of a stage that knew this machine's package index."""
        with contextlib.suppress(docker.errors.DockerException):
            chosen = {"dangling": True, "label": f"{LABEL_TOOL}={_BUILD_STAGE}"}
            self._api.prune_images(filters=chosen)  # type: ignore[no-untyped-call]

    def _build(
        self, tag: str, dockerfile: str, arguments: dict[str, str], beside: dict[str, str] | None = None
    ) -> dict[str, Any]:
        self._tell(ImageProgress(tag, "building"))
        context = {"Dockerfile": dockerfile} | (beside or {})
        hint = ""
        if _REQUIREMENTS in context:
            context |= pip_access.pip_files()
            hint = pip_access.HINT
        proxies = {key: os.environ[key] for key in _PROXIES if key in os.environ}
        said: list[str] = []
        try:
            for line in self._api.build(
                fileobj=io.BytesIO(tar_of(context)),
                custom_context=True,
                tag=tag,
                rm=True,
                forcerm=True,
                decode=True,
                labels={LABEL_TOOL: "image"},
                buildargs=arguments | proxies,
            ):
                if "error" in line:
                    raise ImageUnavailableError(
                        f"the build of {tag} failed: {line['error'].strip()}",
                        detail="\n".join("".join(said).splitlines()[-20:]),
                        hint=hint,
                    )
                text = line.get("stream", "")
                said.append(text)
                if text.startswith("Step "):
                    self._tell(ImageProgress(tag, text.strip()))
        except docker.errors.DockerException as error:
            raise ImageUnavailableError(f"the build of {tag} failed: {error}") from None
        found = self._inspect(tag)
        if found is None:
            raise ImageUnavailableError(f"the build of {tag} ended without an image")
        return found

    def _debian(self, suite: str) -> str:
        for reference in (f"{NAMESPACE}/debian:{suite}", f"debian:{suite}-slim", f"debian:{suite}"):
            if self._inspect(reference):
                return reference
        if self._policy.pull != "never":
            with contextlib.suppress(docker.errors.DockerException):
                reference = f"{self._policy.prefix}debian:{suite}-slim"
                self._pull(reference)
                return reference
        tag = f"{NAMESPACE}/debian:{suite}"
        self._tell(ImageProgress(tag, f"making a bare Debian {suite} with debootstrap; takes about half a minute"))
        debootstrap = shutil.which("debootstrap", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        if debootstrap is None or os.geteuid() != 0:
            missing = "debootstrap is not installed" if debootstrap is None else "that needs root"
            raise ImageUnavailableError(
                f"no Debian {suite} image is here, and none can be made: {missing}",
                hint="apt-get install debootstrap and run as root, or load images: docker load < images.tar",
            )
        mirror = os.environ.get("HARNESS_DEBIAN_MIRROR", _MIRROR)
        with tempfile.TemporaryDirectory(prefix="pooler-harness-debian-") as folder:
            root = Path(folder) / "root"
            done = subprocess.run(  # noqa: S603 -- the suite comes from a recipe of this project
                [debootstrap, "--variant=minbase", "--include=ca-certificates", suite, str(root), mirror],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode != 0:
                raise ImageUnavailableError(
                    f"debootstrap could not make Debian {suite} from {mirror}",
                    detail="\n".join((done.stdout + done.stderr).splitlines()[-8:]),
                    hint="set HARNESS_DEBIAN_MIRROR to a mirror that this machine reaches",
                )
            archive = Path(folder) / "root.tar"
            subprocess.run(["tar", "--numeric-owner", "-C", root, "-cf", archive, "."], check=True)  # noqa: S603, S607
            self._api.import_image_from_file(str(archive), repository=f"{NAMESPACE}/debian", tag=suite)
        return tag


@contextlib.contextmanager
def _one_builder() -> Iterator[None]:
    """Let one process build at a time: two runs that start together build an image once."""
    with (places.cache() / "build.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def tar_of(files: dict[str, str]) -> bytes:
    """Return a tar archive of small text files, with their folders, that anybody in the container may read."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for folder in sorted({str(parent) for name in files for parent in PurePosixPath(name).parents} - {"."}):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        for name, text in files.items():
            data = text.encode()
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o644
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()
