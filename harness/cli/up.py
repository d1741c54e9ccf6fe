"""`up`: keep one topology running for experiments, until Ctrl-C."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from threading import Event
from typing import TYPE_CHECKING

import click

from harness.checks.workspace import Workspace
from harness.cli import completion, options
from harness.cli.exit_codes import ExitCode
from harness.cli.invocation import Invocation, command
from harness.cli.named_topologies import named_topologies, require_used
from harness.cli.parser import OneOf
from harness.cli.standing import removed_by, standing
from harness.database import quote_name
from harness.engine.owner import Owner
from harness.engine.protocol import log_tail
from harness.errors import ServiceFailedError, UsageError
from harness.host.command import url, variables
from harness.lab.credentials import COMMAND_ROLES, CommandRole
from harness.lab.login_files import login_files
from harness.store import new_run_id
from harness.suites.catalogue import FIXTURES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.database import Endpoint
    from harness.lab.credentials import Role
    from harness.lab.lab import Lab
    from harness.lab.login_files import LoginFiles

_ROLE: CommandRole = "createdb"
_DATABASE = "experiments"
#: options about the trail
_OF_THE_TRAIL = ("audit_target", "audit_sql")
#: between two looks at the servers, seconds
_LOOK_S = 0.5
#: options of psql for the server itself, in a shell that has read the file `env`
_DIRECT = '-h "$DIRECT_PGHOST" -p "$DIRECT_PGPORT"'
#: what is printed; the password is in a file
_PRINTED = ("PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "DIRECT_PGHOST", "DIRECT_PGPORT")


@command(
    "up",
    section="Your own systems",
    examples=(
        "harness up transaction",
        "harness up transaction --role superuser --set postgres=15",
        "harness up transaction --trail --audit-target path/to/my-trail.toml",
        "harness up mine --topologies-folder topologies",
    ),
)
@click.argument(
    "topology", metavar="TOPOLOGY", shell_complete=completion.topology_names, help="a name from `list topologies`"
)
@options.option(
    "--role",
    type=OneOf(COMMAND_ROLES),
    default=None,
    metavar="ROLE",
    section="Login",
    help=f"what the login may do: app, owner, createdb or superuser (default: {_ROLE})",
)
@options.option(
    "--trail",
    is_flag=True,
    section="Login",
    help="give the login a database with the audit target and the tables of the checks, to repeat a finding in psql; "
    "the login is then app (the default), owner or superuser, as the checks have them, and the password file has the "
    "logins of all sessions of a script",
)
@options.standing_with_trail
def up(invocation: Invocation, topology: str, *, role: CommandRole | None, trail: bool) -> int:
    """Keep a topology running until Ctrl-C, for experiments.

    Prints the address of the chain, the login, and the file that holds its password. DIRECT_ is the address of the
    server itself. The login has an empty database, or with --trail one with the audit target. Nothing is verified, and
    nothing becomes evidence. Ctrl-C removes the servers and the files, and the exit code is 130; `reap` removes what a
    killed process left.
    """
    if not trail and (given := [name for name in _OF_THE_TRAIL if getattr(invocation.options, name)]):
        raise UsageError(f"--{given[0].replace('_', '-')} has no effect without --trail", hint="add --trail")
    settings, terminal = invocation.settings, invocation.terminal
    (chosen,) = named_topologies(settings, [topology])
    require_used(settings, [chosen])
    owner, stop = Owner.me(new_run_id()), Event()
    if trail:
        if role == "createdb":
            raise UsageError("--role: found createdb, expected app, owner or superuser with --trail")
        settings.target.require_installable()
    with standing(invocation, chosen, owner, stop) as lab, login_files(owner) as files, ExitStack() as stack:
        if trail:
            with removed_by(stop, lab):
                workspace = Workspace(lab, settings.target, FIXTURES)
            stack.callback(workspace.close)
            database = workspace.prepared(_DATABASE, lambda _: None)
            of_checks = {"owner": lab.roles.owner, "superuser": lab.roles.commands["superuser"]}
            login = of_checks.get(role or "app", lab.roles.app)
            lines = _address(lab, login, database, files, _of_sessions(lab, database))
        else:
            chosen_role = role or _ROLE
            lines = _address(lab, lab.roles.commands[chosen_role], _made(lab, chosen_role), files)
        sys.stdout.writelines(f"{line}\n" for line in lines)
        sys.stdout.flush()
        terminal.say(f"{chosen.name} is up until Ctrl-C; in another shell: . {files.env} && psql")
        if trail:
            terminal.say(f"a session of a script that connects directly: psql {_DIRECT} -U ROLE")
        _wait(lab, stop)
    return ExitCode.OK


def _made(lab: Lab, role: CommandRole) -> str:
    """Create the empty database of a login, and return its name."""
    with lab.connect_admin() as admin:
        owner = lab.roles.owner if role == "app" else lab.roles.commands[role]
        admin.run(f"CREATE DATABASE {_DATABASE} OWNER {quote_name(owner.name)}")
    return _DATABASE


def _of_sessions(lab: Lab, database: str) -> list[Endpoint]:
    """Return the logins of the sessions that the script of an Issue has."""
    roles = lab.roles
    directly = (lab.at_server(role, database) for role in (roles.app, roles.owner, roles.admin))
    return [lab.through(roles.app, database), *directly]


def _address(lab: Lab, login: Role, database: str, files: LoginFiles, others: Sequence[Endpoint] = ()) -> list[str]:
    """Write the files of a login, and return what is printed.

    :param others: further logins, which only the password file has.
    """
    chain, direct, console = lab.through(login, database), lab.at_server(login, database), lab.console()
    given = variables(chain, direct)
    logins = [chain, direct, *(other for other in others if other not in (chain, direct))]
    if others:  # libpq prefers this variable to the password file, for whichever login
        del given["PGPASSWORD"]
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
