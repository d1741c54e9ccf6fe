"""The reference host application at the outer end of a running chain."""

from __future__ import annotations

import http.client
import json
import secrets
from typing import TYPE_CHECKING
from urllib.parse import quote

from harness import places
from harness.engine.protocol import Address, Service, ServicePlace, ServiceSpec, Wanted, log_tail
from harness.errors import ServiceFailedError, TimedOutError
from harness.lab.services import rendered
from harness.model import Notifier, PoolMode, Prepare
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harness.lab.credentials import Role
    from harness.lab.lab import Lab

HOST = Wanted(product="hostapp", version="3.13")
#: the worker that a job names when SQL inserts it into Oban's table, and the queue that the host processes
WORKER = "hostapp.jobs.ChangePostTitle"
QUEUE = "threadline_audit"

_VERSION = "reference host"
_SOURCE = places.PACKAGE / "hostapp"
_READY_DEADLINE_S = 30.0
_REQUEST_TIMEOUT_S = 3.0


class HostService:
    """The running application. Its tokens are secrets, and the lab's redactor knows them."""

    def __init__(self, lab: Lab, service: Service, tokens: dict[str, str]) -> None:
        self.service = service
        #: bearer tokens by the id of the actor that they authenticate
        self.tokens = tokens
        self._lab = lab

    @property
    def base_url(self) -> str:
        """The address on loopback; a restart may change it."""
        return f"http://{self.service.endpoint()}"

    def logs(self) -> str:
        """Return the log of the application, also after it was closed."""
        return self._lab.logs()[self.service.name]

    def get(self, path: str) -> tuple[int, bytes]:
        """Send an anonymous GET request.

        :return: status and body.
        :raises OSError: when the connection fails.
        :raises http.client.HTTPException: for an invalid response.
        """
        address = self.service.endpoint()
        connection = http.client.HTTPConnection(address.host, address.port, timeout=_REQUEST_TIMEOUT_S)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def when_ready(self, deadline_s: float = _READY_DEADLINE_S) -> None:
        """Wait until /ready answers 200.

        :param deadline_s: seconds.
        :raises ServiceFailedError: with the last state and the end of the log, when the host ended or the deadline
            passed.
        """
        where = f"topology {self._lab.topology.name}, service {self.service.name}"

        def probe() -> None:
            state = self.service.state()
            if not state.running:
                raise ServiceFailedError(
                    f"the host ended while starting: {state.detail}", where=where, detail=log_tail(self.logs())
                )
            try:
                status, body = self.get("/ready")
            except (OSError, http.client.HTTPException) as error:
                raise NotYet(str(error)) from None
            if status != http.client.OK:
                raise NotYet(f"{status} {body.decode(errors='replace')}")

        try:
            poll(
                probe,
                what="the host's /ready to answer 200",
                deadline_s=deadline_s,
                interval_s=0.02,
                cancelled=self._lab.closing,
            )
        except TimedOutError as error:
            for service in self._lab.services:  # the cause may be a service of the chain that has ended
                if not (state := service.state()).running:
                    raise ServiceFailedError(
                        f"{error.what}; the service {service.name} has ended: {state.detail}",
                        where=where,
                        detail=log_tail(service.logs()),
                    ) from None
            raise ServiceFailedError(
                error.what, where=where, detail=log_tail(self.logs()), hint="harness doctor"
            ) from None

    def close(self) -> None:
        """Stop the application and keep its log; a second call does nothing."""
        self._lab.remove_service(self.service)


def start_host(lab: Lab, database: str, callers: Sequence[Mapping[str, str]]) -> HostService:
    """Start the application on a database, and return it when it is ready.

    It first creates its own tables if they are missing, as their owner and on the direct connection.

    :param database: the name of an existing database of the lab's owner.
    :param callers: actors as the audit trail spells them, `{"type": "user", "id": "ada"}`; each gets a token.
    :raises ServiceFailedError: with the end of its log, when it does not start or never gets ready.
    :raises HarnessError: when the product is not available here.
    """
    if lab.topology.pool_mode is PoolMode.STATEMENT:
        raise ServiceFailedError(
            "the host writes in transactions, but statement mode refuses them", where=f"topology {lab.topology.name}"
        )
    tokens = {caller["id"]: secrets.token_urlsafe(24) for caller in callers}
    lab.learn(*tokens.values())
    actors = {tokens[caller["id"]]: dict(caller) for caller in callers}
    service = lab.start_service("app", HOST, lambda place: _spec(lab, place, database, actors))
    host = HostService(lab, service, tokens)
    try:
        host.when_ready()
    except BaseException:
        host.close()
        raise
    return host


def _spec(lab: Lab, place: ServicePlace, database: str, actors: dict[str, dict[str, str]]) -> ServiceSpec:
    notifier, client, roles = lab.topology.notifier, lab.topology.client, lab.roles
    server = lab.postgres.inside
    settings = rendered(
        HOST.product,
        place=place,
        version=f"{_VERSION} on Python {place.origin.version}",
        dsn=_dsn(lab.outermost.inside, roles.app, database),
        notifier=str(notifier),
        direct_dsn=_dsn(server, roles.app, database) if notifier is Notifier.DIRECT else None,
        prepare_threshold=client.prepare_threshold if client.prepare is Prepare.NAMED else None,
        pool_size=lab.topology.host.pool_size,
        tokens=actors,
        owner_dsn=_dsn(server, roles.owner, database),
        application_role=roles.app.name,
    )
    json.loads(settings["serve.json"])  # fails here when the template is invalid, and not in the application
    source = {
        f"hostapp/{path.name}": path.read_text(encoding="utf-8")
        for path in sorted(_SOURCE.iterdir())
        if path.suffix in {".py", ".sql"}
    }
    return ServiceSpec(
        place=place, files=settings | source, script=f"exec sh {place.folder}/start.sh", stop_signal="SIGTERM"
    )


def _dsn(address: Address, role: Role, database: str) -> str:
    user, password, name = (quote(part, safe="") for part in (role.name, role.password, database))
    return f"postgresql://{user}:{password}@{address.host}:{address.port}/{name}"
