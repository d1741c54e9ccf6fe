"""One container and its server."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import docker.errors

from harness.engine.docker_errors import DOCKER_ERRORS, message_of
from harness.engine.docker_reach import NotPublishedError
from harness.engine.docker_removal import remove_container
from harness.engine.docker_storage import end_script, start_script
from harness.engine.protocol import Address, ServiceSpec, ServiceState, log_tail
from harness.errors import ServiceFailedError
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from docker.api import APIClient

    from harness.engine.docker_reach import ContainerReach

_STOP_S = 10.0
#: seconds
_PAUSED_S = 15.0
#: part of runc's error when processes of a container could not be frozen in time
_BUSY = "unable to freeze"


class DockerService:
    """One container and its server."""

    def __init__(
        self,
        api: APIClient,
        container: str,
        container_name: str,
        spec: ServiceSpec,
        *,
        reach: ContainerReach,
        network_of: str,
        keeps_data: bool,
        spare_folder: str = "",
    ) -> None:
        self._api = api
        #: the container keeps running while its server is down, because it may hold the data in memory
        self._is_supervised = keeps_data
        #: cached by `endpoint`; a restarted container may get another one
        self._address: Address | None = None
        self._reach = reach
        #: "stopped" or "killed" while the server is down in a running container
        self._down = ""
        #: whether `stop` or `kill` ended the container, and whether `pause` paused it
        self._ended = self._paused = False
        #: when this class last started the container, by Docker's clock; None while it does so
        self._started_at: datetime | None = None
        self._id = container
        self._spec = spec
        #: the id of the container whose network it uses: its own, or that of another service
        self.network_of = network_of
        self._inside = spec.place.inside
        self._removed = False
        self.container_name = container_name
        self.spare_folder = spare_folder
        self.name = spec.place.name
        self.origin = spec.place.origin

    def endpoint(self) -> Address:
        """Return the container's own address if it can be reached, else the published port.

        :raises NotPublishedError: when neither exists, because nobody knew yet that containers are out of reach.
        """
        if self._address is None:
            network = self._inspect(self.network_of)["NetworkSettings"]
            port = self._spec.place.port
            bound = (network["Ports"] or {}).get(f"{port}/tcp")
            own = next((joined["IPAddress"] for joined in network["Networks"].values() if joined["IPAddress"]), "")
            if own and self._reach.directly(own, port):
                self._address = Address(own, port)
            elif bound:
                self._address = Address(self._reach.published.host, int(bound[0]["HostPort"]))
            elif own:
                raise NotPublishedError(f"the container does not answer at {own}", where=self.container_name)
            else:
                raise ServiceFailedError(
                    f"the service ended while starting: {self.state().detail}",
                    where=self.container_name,
                    detail=log_tail(self.logs()),
                )
        return self._address

    def note_start(self) -> None:
        """Note when the container was started: a later start is not the harness's."""
        self._started_at = _time_of(self._inspect(self._id)["State"])

    @property
    def inside(self) -> Address:
        return self._inside

    def join(self, network: str, names: Sequence[str]) -> None:
        """Attach the container to a network, where services that are added to the group find it by name.

        :param names: of the services that share its network, if it is the container of the first.
        """
        if self.network_of == self._id:
            self._api.connect_container_to_network(self._id, network, aliases=list(names))
        self._inside = Address(self.name, self._spec.place.port)

    def run(self, command: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str]:
        try:
            started = self._api.exec_create(self._id, list(command), environment=dict(environment))["Id"]
            output: bytes = self._api.exec_start(started)
            code: int = self._api.exec_inspect(started)["ExitCode"]
        except DOCKER_ERRORS as error:
            raise ServiceFailedError(
                f"{command[0]} could not be run in the container: {message_of(error)}", where=self.container_name
            ) from None
        return code, output.decode(errors="replace")

    def state(self) -> ServiceState:
        if self._removed or self._down:
            return ServiceState(running=False, detail="removed" if self._removed else self._down, on_purpose=True)
        try:
            state = self._api.inspect_container(self._id)["State"]
        except docker.errors.NotFound:
            return ServiceState(running=False, detail="the container is gone")
        except DOCKER_ERRORS as error:
            return ServiceState(running=False, detail=f"the Docker engine does not answer: {message_of(error)}")
        detail = state["Status"]
        if not state["Running"]:
            detail += f" with exit code {state['ExitCode']}" + (", out of memory" if state["OOMKilled"] else "")
            if state["Error"]:
                detail += f": {state['Error']}"
        if state["Running"] and (disturbed := self._disturbed(state)):
            return ServiceState(running=False, detail=disturbed)
        return ServiceState(running=state["Running"], detail=detail, on_purpose=self._ended)

    def _disturbed(self, state: dict[str, Any]) -> str:
        """Return what somebody else did to the running container, which explains errors of its clients; "" if nothing.

        A server in a container that was started again may run as before by the time that somebody looks.
        """
        if self._started_at and (at := _time_of(state)) > self._started_at:
            return f"somebody else started its container again at {at:%H:%M:%S} UTC"
        return "somebody else paused its container" if state.get("Paused") and not self._paused else ""

    def logs(self) -> str:
        try:
            raw: bytes = self._api.logs(self._id)
        except DOCKER_ERRORS as error:
            return f"(the log cannot be read: {message_of(error)})\n"
        return raw.decode("utf-8", errors="replace")

    def stop(self, signal: str = "") -> None:
        if self._is_supervised:
            name = (signal or self._spec.stop_signal).removeprefix("SIG")
            if not self._end(f'kill -{name} "$(cat server.pid)"', "stopped"):
                self.kill()
        else:
            if signal:
                self._do("signalled", lambda: self._api.kill(self._id, signal=signal))
            self._do("stopped", lambda: self._api.stop(self._id, timeout=int(_STOP_S)))
            self._ended = True

    def kill(self) -> None:
        if self._is_supervised:
            # -1 is every process of the container but the first one and the sender, see kill(2)
            self._end("kill -KILL -1", "killed")
        else:
            self._do("killed", lambda: self._api.kill(self._id, signal="KILL"))
            self._do("awaited", lambda: self._api.wait(self._id, timeout=10))
            self._ended = True

    def _end(self, signal: str, how: str) -> bool:
        """End the server in its running container, and return whether it ended in time.

        :param signal: the shell command that signals the server.
        :param how: "stopped" or "killed".
        """
        if self._down:
            return True
        script = end_script(self._spec.place.folder, signal, _STOP_S)
        code, output = self.run(["sh", "-c", script], {})
        if code not in {0, 1}:
            raise ServiceFailedError(f"the server could not be {how}: {output.strip()}", where=self.container_name)
        self._down = how if code == 0 else ""
        return code == 0

    def pause(self) -> None:
        def paused() -> None:
            try:
                self._do("paused", lambda: self._api.pause(self._id))
            except ServiceFailedError as error:
                if _BUSY not in str(error):
                    raise
                raise NotYet(error.what) from None

        self._paused = True
        # on a busy machine the kernel may not freeze all processes within the time that runc gives it
        poll(paused, what="the container to be paused", deadline_s=_PAUSED_S, interval_s=0.1)

    def resume(self) -> None:
        self._do("resumed", lambda: self._api.unpause(self._id))
        self._paused = False

    def signal_process(self, pid: int, signal: str) -> None:
        # the kill of the shell, because an image may lack the program; only processes of the container are in reach
        script = f"kill -{signal.removeprefix('SIG')} {pid:d}"
        code, output = self.run(["sh", "-c", script], {})
        if code != 0:
            raise ServiceFailedError(
                f"process {pid} could not be signalled: {output.strip()}", where=self.container_name
            )

    def restart(self) -> None:
        if not self._is_supervised:
            self._address = self._started_at = None
            self._do("restarted", lambda: self._api.restart(self._id, timeout=int(_STOP_S)))
            self._ended = False
            self.note_start()
            return
        self.stop()
        code, output = self.run(["sh", "-c", start_script(self._spec.place.folder)], {})
        if code != 0:
            raise ServiceFailedError(f"the server could not be restarted: {output.strip()}", where=self.container_name)
        self._down = ""

    def remove(self) -> None:
        if self._removed:
            return
        try:
            remove_container(self._api, self._id)
        except DOCKER_ERRORS as error:
            raise ServiceFailedError(
                f"the container could not be removed: {message_of(error)}",
                where=self.container_name,
                hint="harness reap",
            ) from None
        self._removed = True

    def _inspect(self, container: str) -> dict[str, Any]:
        try:
            found: dict[str, Any] = self._api.inspect_container(container)
        except docker.errors.NotFound:
            raise ServiceFailedError("the container is gone", where=self.container_name) from None
        except DOCKER_ERRORS as error:
            raise ServiceFailedError(
                f"the Docker engine does not answer: {message_of(error)}", where=self.container_name
            ) from None
        return found

    def _do(self, done: str, action: Any) -> None:
        try:
            action()
        except DOCKER_ERRORS as error:
            raise ServiceFailedError(
                f"the container could not be {done}: {message_of(error)}", where=self.container_name
            ) from None


def _time_of(state: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(state["StartedAt"])
