"""Topologies: one TOML file each."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec.structs import replace

from harness import config, places
from harness.engine.protocol import Wanted
from harness.engine.recipes import load_product, load_recipe, products
from harness.errors import ConfigError, UsageError
from harness.lab.pooler_options import require_known_options
from harness.model import Notifier, PoolerDeclaration, PoolMode, Topology

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_NAME = re.compile(r"^[a-z][a-z0-9-]{0,30}$")


def load_topologies(folder: Path | None = None) -> dict[str, Topology]:
    """Read every topology file of a folder; by name, `direct` first.

    :param folder: the shipped folder by default.
    :raises ConfigError: with file and key, what was found and what is allowed.
    """
    folder = folder or places.TOPOLOGIES
    paths = sorted(folder.glob("*.toml"), key=lambda path: (path.stem != "direct", path.stem))
    if not folder.is_dir():
        raise ConfigError("no such folder", where=str(folder))
    if not paths:
        raise ConfigError("no topology file in this folder, expected at least one *.toml", where=str(folder))
    return {path.stem: load_topology(path) for path in paths}


def load_topology(path: Path) -> Topology:
    """Read and validate one topology file. Its stem is the name of the topology.

    :raises ConfigError: with file and key, what was found and what is allowed.
    """
    if not _NAME.match(path.stem):
        raise ConfigError(
            f"invalid topology name {path.stem!r} (the file's stem), expected lower-case letters, digits and dashes",
            where=str(path),
        )
    topology = config.load(path, Topology, given={"name": path.stem})
    if topology.pooler:
        _require_pooler(topology.pooler, path)
    if topology.host.notifier is Notifier.LISTEN and topology.pool_mode in {PoolMode.TRANSACTION, PoolMode.STATEMENT}:
        raise ConfigError(
            f"host.notifier: found 'listen', but LISTEN does not survive the pool mode {topology.pool_mode}",
            where=str(path),
            hint='notifier = "poll", or "direct" for LISTEN on a direct connection',
        )
    for key, wanted in chain_of(topology).items():
        known = load_versions(wanted.product)
        if wanted.version not in known:
            raise ConfigError(
                f'{key}.version: found "{wanted.version}", allowed: {", ".join(known)}',
                where=str(path),
                hint=f"or add the version to topologies/images/{wanted.product}/recipe.toml",
            )
    tables = {"postgres.settings": topology.postgres.settings}
    if pooler := topology.pooler:
        tables |= {"pooler.settings": pooler.settings, "pooler.database": pooler.database, "pooler.user": pooler.user}
    for key, settings in tables.items():
        for name, value in settings.items():
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", name) or "\n" in value:
                raise ConfigError(
                    f"{key}.{name}: invalid setting, expected a name and a value on one line", where=str(path)
                )
    if topology.pooler:
        require_known_options(topology.pooler, str(path))
    return topology


def _require_pooler(pooler: PoolerDeclaration, path: Path) -> None:
    if pooler.product not in products():
        raise ConfigError(
            f"pooler.product: found {pooler.product!r}, allowed: {', '.join(poolers())}",
            where=str(path),
            hint=config.nearest(pooler.product, poolers()),
        )
    if pooler.peered and pooler.instances == 1:
        raise ConfigError(
            "pooler.peered: found true, but a single instance has no peers", where=str(path), hint="instances = 2"
        )
    if pooler.product != "pgbouncer" and (pooler.database or pooler.user):
        raise ConfigError(
            f"pooler.{'database' if pooler.database else 'user'}: only PgBouncer has these options, found "
            f"{pooler.product}",
            where=str(path),
            hint="settings = { … } sets lines of the pooler's configuration file",
        )
    modes = load_product(pooler.product).pool_modes
    if pooler.pool_mode not in modes:
        raise ConfigError(
            f"pooler.pool_mode: found '{pooler.pool_mode}', allowed for {pooler.product}: {', '.join(modes)}",
            where=str(path),
        )


def poolers() -> list[str]:
    """Return the products that are poolers."""
    return [name for name in products() if load_product(name).pool_modes]


def load_versions(product: str) -> list[str]:
    """Return the versions of a product that have a recipe."""
    return list(load_product(product).versions)


def chain_of(topology: Topology) -> dict[str, Wanted]:
    """Return the products of a topology by the names of their services, from the database outwards."""
    chain = {"postgres": Wanted(product="postgres", version=topology.postgres.version)}
    if topology.pooler:
        chain["pooler"] = Wanted(product=topology.pooler.product, version=topology.pooler.version)
    return chain


def wanted_by(topology: Topology) -> tuple[Wanted, ...]:
    """Return the products that a topology needs, from the database outwards."""
    return tuple(chain_of(topology).values())


def with_versions(topology: Topology, versions: dict[str, str]) -> Topology:
    """Return the topology with other versions, as `--set postgres=15` requests; they become part of its name.

    :param versions: versions by product. A product that the topology does not have is ignored.
    :raises UsageError: for an unknown product, a version without a recipe, or one that does not know a declared option.
    """
    for product, version in versions.items():
        if product not in products():
            raise UsageError(
                f"--set {product}={version}: unknown product",
                # the reference host has a recipe, but no topology chooses its version
                hint=config.nearest(product, ("postgres", *poolers())),
            )
        try:
            load_recipe(Wanted(product=product, version=version))
        except ConfigError as error:
            raise UsageError(f"--set {product}={version}: {error.what}") from None
    name = topology.name
    if (version := versions.get("postgres", topology.postgres.version)) != topology.postgres.version:
        topology = replace(topology, postgres=replace(topology.postgres, version=version))
        name += f"+postgres-{version}"
    if topology.pooler and (chosen := versions.get(topology.pooler.product)):
        if chosen != topology.pooler.version:
            name += f"+{topology.pooler.product}-{chosen}"
        pooler = replace(topology.pooler, version=chosen)
        try:
            require_known_options(pooler, f"topology {topology.name}")
        except ConfigError as error:
            what = f"--set {pooler.product}={chosen}: {error.what}"
            raise UsageError(what, where=error.where, hint=error.hint) from None
        topology = replace(topology, pooler=pooler)
    return replace(topology, name=name)


def select(topologies: dict[str, Topology], names: Iterable[str]) -> list[Topology]:
    """Return the named topologies, in the order of the names; without names, all that are not on demand.

    :raises UsageError: for an unknown name.
    """
    names = list(dict.fromkeys(names))
    for name in names:
        if name not in topologies:
            raise UsageError(f"unknown topology {name!r}", hint=config.nearest(name, topologies))
    if names:
        return [topologies[name] for name in names]
    return [topology for topology in topologies.values() if not topology.on_demand]
