"""Pooling: ParameterStatus messages, by which a client knows the settings that are in force for it.

Drivers read time zone, encoding and quoting rules from these messages. A client that knows another value than the
server's reads times wrongly or quotes text wrongly, without an error.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from msgspec.structs import replace

from harness.checks.documented import WORKS
from harness.checks.occupation import settle
from harness.checks.server_connections import pressed
from harness.libpq import simple
from harness.suites.pooling.connections import log_in_raw
from harness.suites.pooling.probes import LOST, SETTINGS, WRONG, probe
from harness.wire.relay import Relay
from harness.wire.sockets import ServerAddress

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from harness.checks.context import CheckContext
    from harness.database import Client, Endpoint
    from harness.model import Outcome

#: settings that every server reports and that poolers track, with a value that differs from the lab's
TRACKED = {
    "TimeZone": "Asia/Kathmandu",
    "DateStyle": "German, DMY",
    "client_encoding": "LATIN1",
    "application_name": "renamed",
    "standard_conforming_strings": "off",
}
#: further settings that an application may change, and that the server reports from some version on
OTHERS = {"IntervalStyle": "iso_8601", "default_transaction_read_only": "on", "search_path": "tenant_a"}


@contextlib.contextmanager
def _address(ctx: CheckContext) -> Iterator[Endpoint]:
    """Return the chain's endpoint; under the control, that of a proxy which withholds every ParameterStatus."""
    chain = ctx.lab.chain(ctx.database)
    if not ctx.sabotaged:
        yield chain
        return
    with Relay(ServerAddress(host=chain.host, port=chain.port), b"S") as relay:
        yield replace(chain, host=relay.address.host, port=relay.address.port)


def _reported(ctx: CheckContext) -> dict[str, str]:
    """Return what the server itself reports at login, by name."""
    with contextlib.closing(log_in_raw(ctx.lab.direct(ctx.database), {})) as wire:
        return dict(wire.parameters)


def _compare(ctx: CheckContext, received: Mapping[str, str | None], in_force: Mapping[str, str | None]) -> Outcome:
    """Return *wrong* if the client received another value than is in force, else *lost* if it received none."""
    missing = [name for name in in_force if received.get(name) is None]
    other = {
        name: {"received": received[name], "in force": value}
        for name, value in in_force.items()
        if name not in missing and received[name] != value
    }
    ctx.fact("settings compared", sorted(in_force))
    ctx.fact("settings of which the client knows another value than is in force", other)
    ctx.fact("settings that the client was not informed of", missing)
    return WRONG if other else LOST if missing else WORKS


def _after(ctx: CheckContext, client: Client, names: Iterable[str]) -> Outcome:
    names = tuple(names)
    in_force = {name: simple(client, f"SHOW {name}").value for name in names}
    received = {name: client.pgconn.parameter_status(name.encode()) for name in names}
    texts = {name: value.decode(errors="replace") if value is not None else None for name, value in received.items()}
    return _compare(ctx, texts, in_force)


@probe(
    "parameter-status-login",
    "ParameterStatus: after login",
    group=SETTINGS,
    claim="at login a client is informed of every setting that the server reports, with the value in force",
)
def after_login(ctx: CheckContext) -> Outcome:
    with _address(ctx) as endpoint, contextlib.closing(log_in_raw(endpoint, {})) as wire:
        # PgBouncer reports a parameter in the spelling of track_extra_parameters
        received = {name.casefold(): value for name, value in wire.parameters.items()}
        in_force = {name.casefold(): wire.query(f"SHOW {name}")[0][0] for name in _reported(ctx)}
    return _compare(ctx, received, in_force)


@probe(
    "parameter-status-set",
    "ParameterStatus: after SET",
    group=SETTINGS,
    claim="after SET a client is informed of the new value",
)
def after_set(ctx: CheckContext) -> Outcome:
    changed = {name: value for name, value in {**TRACKED, **OTHERS}.items() if name in _reported(ctx)}
    with _address(ctx) as endpoint:
        client = ctx.connect(endpoint)
        settle(ctx, client)
        for name, value in changed.items():
            simple(client, f"SET {name} = '{value}'")
        return _after(ctx, client, changed)


@probe(
    "parameter-status-moved",
    "ParameterStatus: of tracked settings, on another server connection",
    group=SETTINGS,
    claim="after a change of server connections a client knows the value in force of client_encoding, DateStyle, TimeZone,"
    " application_name and standard_conforming_strings",
)
def after_move(ctx: CheckContext) -> Outcome:
    return _moved(ctx, TRACKED)


@probe(
    "parameter-status-others",
    "ParameterStatus: of IntervalStyle, default_transaction_read_only and search_path, on another server connection",
    group=SETTINGS,
    claim="after a change of server connections a client knows the value in force of every other setting that the"
    " server reports",
)
def others_after_move(ctx: CheckContext) -> Outcome:
    reported = _reported(ctx)
    return _moved(ctx, {name: value for name, value in OTHERS.items() if name in reported})


def _moved(ctx: CheckContext, changed: Mapping[str, str]) -> Outcome:
    with _address(ctx) as endpoint:
        client = ctx.connect(endpoint)
        settle(ctx, client)
        for name, value in changed.items():
            simple(client, f"SET {name} = '{value}'")
        with pressed(ctx, client):
            return _after(ctx, client, changed)
