"""Recipes: the products that topologies consist of, their versions and packages, and the source of their images."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Literal, get_args

from msgspec import Struct

from harness import config, places
from harness.errors import ConfigError
from harness.model import PoolMode

if TYPE_CHECKING:
    from pathlib import Path

    from harness.engine.protocol import Wanted


#: when images are pulled
Pull = Literal["missing", "never", "always"]
PULLS: tuple[str, ...] = get_args(Pull)


class ImagePolicy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The source of images."""

    #: put before every name that is not overridden, such as `registry.example/mirror/`
    prefix: str = ""
    #: when images are pulled
    pull: Pull = "missing"
    #: maps a product, or product:version, to an image reference
    override: dict[str, str] = {}


class RecipeVersion(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table `versions` of a recipe."""

    #: the published image; empty if none can be pinned
    image: str = ""
    #: the Debian release of the packages
    suite: str
    #: Debian packages, for an offline build
    packages: tuple[str, ...]


class Recipe(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`topologies/images/<product>/recipe.toml`."""

    #: the name of the binary
    program: str
    #: the product's name as its project spells it
    title: str
    #: the port that the server listens on in a container
    port: int
    #: the signal for an immediate, clean shutdown
    stop_signal: str
    #: the pool modes of a pooler
    pool_modes: tuple[PoolMode, ...] = ()
    versions: dict[str, RecipeVersion]


def recipe_folder(product: str) -> Path:
    return places.TOPOLOGIES / "images" / product


def load_product(product: str) -> Recipe:
    """Return the recipe of a product.

    :raises ConfigError: when the product has none.
    """
    path = recipe_folder(product) / "recipe.toml"
    if "/" in product or not path.is_file():
        raise ConfigError(f"unknown product {product!r}; choose one of: {', '.join(products())}")
    return _recipe(path, path.stat().st_mtime_ns)


@cache
def _recipe(path: Path, _changed_ns: int) -> Recipe:
    """Read a recipe once, because loading the topologies asks for it a hundred times."""
    return config.load(path, Recipe)


def products() -> list[str]:
    """Return the names of the products that have a recipe."""
    return sorted(path.parent.name for path in (places.TOPOLOGIES / "images").glob("*/recipe.toml"))


def load_recipe(wanted: Wanted) -> tuple[Recipe, RecipeVersion]:
    """Return the recipe of a product and of its version.

    :raises ConfigError: when the product or the version has none.
    """
    path = recipe_folder(wanted.product) / "recipe.toml"
    recipe = load_product(wanted.product)
    if wanted.version not in recipe.versions:
        raise ConfigError(
            f"unknown version {wanted.version!r} of {wanted.product}; known: {', '.join(sorted(recipe.versions))}",
            where=str(path),
            hint=f'choose a known version, or add a [versions."{wanted.version}"] table to this file',
        )
    return recipe, recipe.versions[wanted.version]


def files_beside(product: str) -> dict[str, str]:
    """Return the additional files in the build context of a product's prepared image: file name to text."""
    own = {"recipe.toml", "Dockerfile", "prepared.Dockerfile"}
    paths = sorted(path for path in recipe_folder(product).iterdir() if path.is_file() and path.name not in own)
    return {path.name: path.read_text(encoding="utf-8") for path in paths}
