"""The topologies that a command names, and what the command line and harness.toml say of topologies in vain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.config import nearest
from harness.errors import ConfigError, UsageError
from harness.lab.host import HOST
from harness.lab.links import LINK
from harness.lab.topologies import load_topologies, select, wanted_by, with_versions

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from harness.cli.settings import Settings
    from harness.model import Topology


def named_topologies(settings: Settings, names: Sequence[str]) -> list[Topology]:
    """Return the named topologies, in the versions of `--set`; all but those on demand when none is named.

    :raises UsageError: for an unknown name.
    :raises ConfigError: for a topology file or harness.toml that names something undefined.
    """
    known = load_topologies(settings.topologies)
    verified = {check.id for check in settings.catalogue.checks} | set(settings.catalogue.suites())
    for topology in known.values():
        for key, name in (*(("verify", name) for name in topology.verify), *(("omit", name) for name in topology.omit)):
            if name not in verified:
                raise ConfigError(
                    f"{key}: unknown suite or check {name!r}",
                    where=str(settings.topologies / f"{topology.name}.toml"),
                    hint=nearest(name, verified),
                )
        if topology.name in settings.environments:
            raise ConfigError(
                f"environments: {topology.name} is the name of a topology, expected another name",
                where="harness.toml",
            )
    require_names_known(settings)
    for name in names:
        if name in settings.environments:
            raise UsageError(
                f"{name} is an environment, expected a topology", hint=f"harness verify --environment {name}"
            )
    chosen = select(known, [name.partition("+")[0] for name in names])
    return [with_versions(topology, settings.versions) for topology in chosen]


def require_names_known(settings: Settings) -> None:
    """Reject an entry of harness.toml that names a topology or an environment that does not exist.

    An entry may be about a topology of the project's own folder while `--topologies-folder` names another one.

    :raises ConfigError: for the first such name.
    """
    entries = [
        *(("known_issues", f"the entry for {entry.check}", entry.topologies) for entry in settings.known_issues),
        *(("quarantine", f"the entry for {entry.check}", entry.topologies) for entry in settings.quarantine),
        *(("commands", command.name, command.topologies) for command in settings.commands),
    ]
    if not any(names for _, _, names in entries):
        return
    folders = dict.fromkeys((settings.topologies, settings.own_topologies))
    known = [name for folder in folders for name in load_topologies(folder)]
    for key, entry, names in entries:
        is_command = key == "commands"  # runs behind topologies only
        kind, allowed = (
            ("topology", known) if is_command else ("topology or environment", [*known, *settings.environments])
        )
        for name in names:
            # the rows of a variant have the name of its topology, and then a plus sign
            if name not in allowed and (is_command or name.partition("+")[0] not in known):
                hint = nearest(name, allowed)
                raise ConfigError(f"{key}: {entry}: unknown {kind} {name!r}", where="harness.toml", hint=hint)


def require_used(settings: Settings, topologies: Sequence[Topology]) -> None:
    """Reject a version or an image on the command line that would have no effect.

    :param topologies: those that the command starts.
    :raises UsageError: for a product that none of them uses.
    """
    for product, version in settings.versions.items():
        require_product_used("--set", f"{product}={version}", product, topologies)
    for name in settings.chosen_images:
        product = name.partition(":")[0]
        if product not in {HOST.product, LINK.product}:  # checks start these next to a topology
            require_product_used("--image", f"{name}={settings.images.override[name]}", product, topologies)


def require_product_used(option: str, given: str, product: str, topologies: Iterable[Topology]) -> None:
    """Reject a product that no topology uses.

    :param option: the option that names the product.
    :param given: the value of the option.
    :raises UsageError: with the products that are used.
    """
    used = dict.fromkeys(wanted.product for topology in topologies for wanted in wanted_by(topology))
    if product not in used:
        raise UsageError(
            f"{option} {given} has no effect: no chosen topology uses {product}",
            hint=f"choose from the products in use: {', '.join(used)}" if used else "leave it out, nothing is started",
        )
