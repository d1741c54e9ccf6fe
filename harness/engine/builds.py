"""Image builds on one Docker engine; every unfinished container and image is labelled with its owner.

Docker's classic builder labels intermediate containers and images with the labels that the Dockerfile has set so far.
Each stage therefore begins with the owner's labels. A finished image gets empty values for them.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import secrets
import tarfile
from pathlib import PurePosixPath
from threading import BoundedSemaphore, Event
from typing import TYPE_CHECKING

from harness.engine.build_failures import build_failure, interrupted
from harness.engine.docker_errors import DOCKER_ERRORS, message_of
from harness.engine.docker_labels import LABEL_BUILD, LABEL_HOST, LABEL_PID, LABEL_STARTED, LABEL_TOOL
from harness.engine.docker_removal import remove_container, remove_unfinished
from harness.engine.owner import Owner
from harness.errors import ImageUnavailableError
from harness.events import ImageProgress, Listener

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from docker.api import APIClient

_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
_BUILT = re.compile(r"^Successfully built ([0-9a-f]+)")
_RUN_S = 60


class ImageBuilder:
    """Builds the images of one product."""

    def __init__(
        self,
        api: APIClient,
        listener: Listener,
        *,
        slots: BoundedSemaphore | None = None,
        cancelled: Event | None = None,
    ) -> None:
        """Create the labels that name this process as the owner.

        :param api: a client that no other thread uses during the build.
        :param listener: receives the progress.
        :param slots: limits the build steps that run at the same time.
        :param cancelled: cancels the build when set.
        """
        self._api = api
        self._notify = listener
        self._slots = slots or BoundedSemaphore(1)
        self.cancelled = cancelled or Event()
        #: whether this build may have made a container or an image
        self._began = False
        self.owner = Owner.me(f"build-{secrets.token_hex(4)}")
        self.labels = {
            LABEL_BUILD: self.owner.run_id,
            LABEL_HOST: self.owner.host,
            LABEL_PID: str(self.owner.pid),
            LABEL_STARTED: str(self.owner.started),
        }

    @contextlib.contextmanager
    def slot(self, what: str) -> Iterator[None]:
        """Hold one of the build slots.

        :param what: names the step, such as "the build of postgres:17".
        :raises ImageUnavailableError: when the build is cancelled.
        """
        with self._slots:
            self.check(what)
            yield

    def check(self, what: str) -> None:
        """Check for cancellation.

        :param what: names the step.
        :raises ImageUnavailableError: when the build is cancelled.
        """
        if self.cancelled.is_set():
            raise interrupted(what)

    def build(
        self,
        tag: str,
        dockerfile: str,
        arguments: Mapping[str, str],
        files: Mapping[str, str] | None = None,
        *,
        finished: bool = True,
        only_labels: bool = False,
        hint: str = "",
    ) -> str:
        """Build an image and return its id.

        :param tag: the name of the image. An unfinished image is built for this name and gets no name of its own.
        :param dockerfile: its text, without the owner's labels.
        :param arguments: the build arguments; the proxies of this process's environment are added.
        :param files: the build context in addition to the Dockerfile: file name to text.
        :param finished: the image keeps no owner's labels, and is called `tag`.
        :param only_labels: the Dockerfile runs no command, so the build needs no slot.
        :param hint: what to try if the build fails and the disk is not full.
        :raises ImageUnavailableError: with the end of the build's output.
        """
        what = f"the build of {tag}"
        context = {"Dockerfile": with_labels(dockerfile, self.labels)} | dict(files or {})
        proxies = {key: os.environ[key] for key in _PROXIES if key in os.environ}
        printed: list[str] = []
        image = ""
        with contextlib.nullcontext() if only_labels else self.slot(what):
            self.check(what)
            self._began = True
            try:
                for line in self._api.build(
                    fileobj=io.BytesIO(tar_of(context)),
                    custom_context=True,
                    tag=tag if finished else None,
                    rm=True,
                    forcerm=True,
                    decode=True,
                    labels={LABEL_TOOL: "image"} | dict.fromkeys(self.labels, "") if finished else {},
                    buildargs=dict(arguments) | proxies,
                ):
                    if "error" in line:
                        self.check(what)
                        reason = line["error"].strip()
                        output = "".join(printed) + "\n" + reason
                        raise build_failure(f"{what} failed", output, hint=hint, otherwise=reason)
                    text = line.get("stream", "")
                    printed.append(text)
                    if match := _BUILT.match(text):
                        image = image or match[1]
                    image = (line.get("aux") or {}).get("ID", "") or image
                    if text.startswith("Step ") and "LABEL" not in text:
                        self._notify(ImageProgress(tag, text.strip()))
            except DOCKER_ERRORS as error:
                self.check(what)
                reason = message_of(error)
                output = "".join(printed) + "\n" + reason
                raise build_failure(f"{what} failed", output, otherwise=reason) from None
        if not image:
            raise ImageUnavailableError(f"{what} ended without an image id")
        return image

    def import_system(self, tag: str, archive: Iterable[bytes]) -> str:
        """Import a root file system as an image and return the image's id.

        :param tag: the name of the image, which it gets once it is complete.
        :param archive: the tar archive, in pieces.
        :raises ImageUnavailableError: when the import fails.
        """
        what = f"the import of {tag}"

        def pieces() -> Iterator[bytes]:
            for piece in archive:
                self.check(what)
                yield piece

        self._began = True
        try:
            output = self._api.import_image_from_stream(
                pieces(), changes=[_label_instruction(self.labels), 'CMD ["bash"]']
            )
        except DOCKER_ERRORS as error:
            self.check(what)
            raise build_failure(f"{what} failed", message_of(error), otherwise=message_of(error)) from None
        answer = json.loads(output.strip().splitlines()[-1])
        if "error" in answer:
            raise build_failure(f"{what} failed", answer["error"], otherwise=answer["error"])
        # Docker returns the id as the status; Podman returns it as the id, because it chooses a name itself
        return self.build(tag, f"FROM {answer.get('id') or answer['status']}\n", {}, only_labels=True)

    def output_of(self, image: str, command: str) -> str:
        """Run a shell command in a container of an image and return its output.

        :raises ImageUnavailableError: when the command cannot be run.
        """
        self._began = True
        try:
            container = self._api.create_container(
                image, command=["sh", "-c", command], labels={LABEL_TOOL: "build"} | self.labels
            )["Id"]
            try:
                self._api.start(container)
                self._api.wait(container, timeout=_RUN_S)
                printed: bytes = self._api.logs(container)
            finally:
                remove_container(self._api, container)
        except DOCKER_ERRORS as error:
            self.check(f"{command} in {image}")
            raise build_failure(
                f"{command} could not be run in {image}", message_of(error), otherwise=message_of(error)
            ) from None
        return printed.decode(errors="replace")

    def clean(self, api: APIClient | None = None) -> None:
        """Remove the containers and images of this build that are not part of a finished image.

        Most products have an image already. Then nothing is searched for: Docker lists images slowly if it has many.

        :param api: the client to use, if the caller is another thread than the one that builds.
        """
        if not self._began:
            return
        with contextlib.suppress(*DOCKER_ERRORS):
            remove_unfinished(api or self._api, lambda labels: labels.get(LABEL_BUILD) == self.owner.run_id)


def with_labels(dockerfile: str, labels: Mapping[str, str]) -> str:
    """Return a Dockerfile with a LABEL instruction at the beginning of each stage."""
    lines: list[str] = []
    is_from = continued = False
    for line in dockerfile.splitlines():
        lines.append(line)
        text = line.strip()
        if not text or text.startswith("#"):  # also allowed between the lines of one instruction
            continue
        if not continued:
            is_from = text.split()[0].upper() == "FROM"
        continued = text.endswith("\\")
        if is_from and not continued:
            lines.append(_label_instruction(labels))
    return "\n".join(lines) + "\n"


def _label_instruction(labels: Mapping[str, str]) -> str:
    return "LABEL " + " ".join(f'{key}="{value}"' for key, value in labels.items())


def tar_of(files: Mapping[str, str]) -> bytes:
    """Return a tar archive of text files and their folders, which every user of the container may read.

    :param files: path to text.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for folder in sorted({str(parent) for name in files for parent in PurePosixPath(name).parents} - {"."}):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        for name, text in files.items():
            data = text.encode()
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o644
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()
