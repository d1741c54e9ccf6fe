"""`up`: keep one topology running for experiments, until Ctrl-C."""

from __future__ import annotations

import sys
from threading import Event
from typing import TYPE_CHECKING

import click

from harness.cli import completion, options
from harness.cli.exit_codes import ExitCode
from harness.cli.invocation import Invocation, command
from harness.cli.parser import OneOf
from harness.cli.planning import named_topologies, require_used
from harness.cli.standing import standing
from harness.database import quote_name
from harness.engine.owner import Owner
from harness.engine.protocol import log_tail
from harness.errors import ServiceFailedError
from harness.host.command import url, variables
from harness.lab.credentials import COMMAND_ROLES, CommandRole
from harness.lab.login_files import login_files
from harness.store import new_run_id

if TYPE_CHECKING:
    from harness.lab.lab import Lab
    from harness.lab.login_files import LoginFiles

_ROLE: CommandRole = "createdb"
_DATABASE = "experiments"
#: between two looks at the servers, seconds
_LOOK_S = 0.5
#: what is printed; the password is in a file
_PRINTED = ("PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "DIRECT_PGHOST", "DIRECT_PGPORT")


@command(
    "up",
    section="Your own systems",
    examples=(
        "harness up transaction",
        "harness up transaction --role superuser --set postgres=15",
        "harness up mine --topologies-folder topologies",
    ),
)
@click.argument(
    "topology", metavar="TOPOLOGY", shell_complete=completion.topology_names, help="a name from `list topologies`"
)
@options.option(
    "--role",
    type=OneOf(COMMAND_ROLES),
    default=_ROLE,
    metavar="ROLE",
    section="Login",
    help=f"what the login may do: app, owner, createdb or superuser (default: {_ROLE})",
)
@options.standing
def up(invocation: Invocation, topology: str, *, role: CommandRole) -> int:
    """Keep a topology running until Ctrl-C, for experiments.

    Prints the address of the chain, the login, and the file that holds its password. DIRECT_ is the address of the
    server itself. The login has an empty database. Nothing is verified, and nothing becomes evidence. Ctrl-C removes
    the servers and the files, and the exit code is 130; `reap` removes what a killed process left.
    """
    settings, terminal = invocation.settings, invocation.terminal
    (chosen,) = named_topologies(settings, [topology])
    require_used(settings, [chosen])
    owner, stop = Owner.me(new_run_id()), Event()
    with standing(invocation, chosen, owner, stop) as lab, login_files(owner) as files:
        for line in _address(lab, role, files):
            sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
        terminal.say(f"{chosen.name} is up until Ctrl-C; in another shell: . {files.env} && psql")
        _wait(lab, stop)
    return ExitCode.OK


def _address(lab: Lab, role: CommandRole, files: LoginFiles) -> list[str]:
    """Create the database of the login, write its files, and return what is printed."""
    login = lab.roles.commands[role]
    with lab.connect_admin() as admin:
        owner = lab.roles.owner if role == "app" else login
        admin.run(f"CREATE DATABASE {_DATABASE} OWNER {quote_name(owner.name)}")
    chain, direct, console = lab.through(login, _DATABASE), lab.at_server(login, _DATABASE), lab.console()
    given = variables(chain, direct)
    logins = [chain, direct]
    printed = [f"{name}={given[name]}" for name in _PRINTED]
    if console:
        given["CONSOLE_URL"] = url(console)
        logins.append(console)
        printed.append(f"CONSOLE_PGUSER={console.user}")
    files.write(given, logins)
    return [*printed, f"PGPASSFILE={files.pgpass}", f"ENV_FILE={files.env}"]


def _wait(lab: Lab, stop: Event) -> None:
    """Wait for a signal.

    :raises ServiceFailedError: when a server ended by itself.
    """
    while not stop.wait(_LOOK_S):
        for service in lab.services:
            state = service.state()
            if not state.running:
                raise ServiceFailedError(
                    f"the service ended: {state.detail}",
                    where=f"topology {lab.topology.name}, service {service.name}",
                    detail=log_tail(service.logs()),
                )
