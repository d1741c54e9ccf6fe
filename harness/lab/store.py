"""The object store of a lab: rclone's S3 server next to the chain, with random keys."""

from __future__ import annotations

import http.client
import secrets
from shlex import quote
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from harness.engine.protocol import Address, Service, ServicePlace, ServiceSpec, Wanted, log_tail
from harness.engine.recipes import load_product
from harness.errors import ServiceFailedError, TimedOutError
from harness.model import ServiceEvidence
from harness.waiting import NotYet, poll
from harness.wire.s3_signature import Keys, signed_headers

if TYPE_CHECKING:
    from harness.lab.lab import Lab

STORE = Wanted(product="rclone", version="1.75.2")
#: the key of the service in a lab
STORE_SERVICE = "store"

_READY_DEADLINE_S = 20.0
_REQUEST_S = 3.0
#: another program took the port after it was chosen
_PORT_TAKEN = "address already in use"
#: reads the keys from a file, so that no process list shows them
_SCRIPT = """
cd {folder} && mkdir -p data && RCLONE_AUTH_KEY="\\"$(cat keys)\\"" RCLONE_CONFIG= RCLONE_CACHE_DIR={folder}/cache \\
exec rclone serve s3 data --addr {address}
"""


class ObjectStore:
    """The running store. Its keys are secrets, and the lab's redactor knows them."""

    #: it speaks plain HTTP
    tls = None

    def __init__(self, lab: Lab, service: Service, keys: Keys) -> None:
        self.service = service
        self.access_key = keys.access_key
        self.secret_key = keys.secret_key
        self.region = keys.region
        self._lab = lab
        self._keys = keys

    @property
    def address(self) -> Address:
        """The address for this machine; a restart may change it."""
        return self.service.endpoint()

    @property
    def endpoint_url(self) -> str:
        return f"http://{self.address}"

    @property
    def version(self) -> str:
        """The product and its version, such as `rclone 1.75.2`."""
        return f"{self.service.origin.product} {self.service.origin.version}"

    def logs(self) -> str:
        """Return the log of the store, also after the lab removed it."""
        return self._lab.redact(self._lab.logs().get(self.service.name) or self.service.logs())

    def stop(self) -> None:
        """Shut the store down: connections are refused, and its objects stay."""
        self.service.stop()

    def start(self) -> None:
        """Start the store again with its objects, and return when it answers.

        The store forgets the metadata of objects, such as their content types.

        :raises ServiceFailedError: when it does not answer.
        """
        self.service.restart()
        self.when_ready()

    def when_ready(self) -> None:
        """Wait until the store answers a signed request.

        :raises ServiceFailedError: with the last state and the end of the log, when the store ended, refuses its own
            keys, or never answered.
        """
        where = f"topology {self._lab.topology.name}, service {self.service.name}"

        def probe() -> None:
            state = self.service.state()
            if not state.running:
                raise ServiceFailedError(
                    f"the object store ended while starting: {state.detail}", where=where, detail=log_tail(self.logs())
                )
            try:
                status, body = self._ask()
            except (OSError, http.client.HTTPException) as error:
                raise NotYet(str(error) or type(error).__name__) from None
            if status != http.client.OK or not _is_list(body):
                # another program may answer at the port; the store then ends in a moment
                raise NotYet(f"{status} {body.decode(errors='replace')[:200]}")

        try:
            poll(
                probe,
                what="the object store to answer a signed request",
                deadline_s=_READY_DEADLINE_S,
                interval_s=0.02,
                cancelled=self._lab.closing,
            )
        except TimedOutError as error:
            raise ServiceFailedError(
                self._lab.redact(error.what), where=where, detail=log_tail(self.logs()), hint="harness doctor"
            ) from None

    def _ask(self) -> tuple[int, bytes]:
        """List the buckets, and return the status and the body."""
        address = self.service.endpoint()
        headers = signed_headers(self._keys, "GET", str(address), "/")
        connection = http.client.HTTPConnection(address.host, address.port, timeout=_REQUEST_S)
        try:
            connection.request("GET", "/", headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


def start_store(lab: Lab) -> ObjectStore:
    """Start an object store next to a chain, and return it when it answers a signed request.

    :raises ServiceFailedError: with the end of its log, when it does not start.
    :raises HarnessError: when its program is not available here.
    """
    try:
        return _started(lab)
    except ServiceFailedError as error:
        if _PORT_TAKEN not in error.detail.lower():
            raise
    return _started(lab)


def _started(lab: Lab) -> ObjectStore:
    keys = Keys(access_key=secrets.token_hex(10).upper(), secret_key=secrets.token_urlsafe(30))
    lab.learn(keys.access_key, keys.secret_key)
    service = lab.start_service(STORE_SERVICE, STORE, lambda place: _spec(place, keys))
    store = ObjectStore(lab, service, keys)
    try:
        store.when_ready()
    except BaseException:
        lab.remove_service(service)
        raise
    origin = service.origin
    lab.evidence_beside[STORE_SERVICE] = ServiceEvidence(
        name=STORE_SERVICE,
        product=origin.product,
        title=load_product(origin.product).title,
        version=origin.version,
        origin=origin.reference,
    )
    return store


def _spec(place: ServicePlace, keys: Keys) -> ServiceSpec:
    return ServiceSpec(
        place=place,
        files={"keys": f"{keys.access_key},{keys.secret_key}"},
        script=_SCRIPT.format(folder=quote(place.folder), address=quote(str(Address(place.listen, place.port)))),
        stop_signal=load_product(STORE.product).stop_signal,
    )


def _is_list(body: bytes) -> bool:
    try:
        return ET.fromstring(body).tag.endswith("ListAllMyBucketsResult")  # noqa: S314 -- of our own server
    except ET.ParseError:
        return False
