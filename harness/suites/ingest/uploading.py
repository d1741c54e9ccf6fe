"""What a client does with a pipeline: it asks the API for an address, and uploads a file there."""

from __future__ import annotations

import hashlib
import secrets
import time
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from harness.checks.judges.ingest_state import Upload
from harness.errors import TimedOutError
from harness.host.site import Site, Values
from harness.model import EvidenceClass
from harness.suites.ingest.asking import ask
from harness.suites.ingest.description import Misfit, error_of, kept, other_key, other_request
from harness.suites.ingest.programs import API, Programs
from harness.waiting import NotYet, poll

if TYPE_CHECKING:
    from harness.checks.context import CheckContext
    from harness.checks.judges.ingest_state import End
    from harness.host.declarations import Caller, Step
    from harness.host.http_client import HttpClient
    from harness.host.http_response import HttpResponse
    from harness.ingest.cases import IngestCase
    from harness.ingest.loading import LoadedPipeline
    from harness.store import Journal
    from harness.suites.ingest.asking import Reply

#: for one request to the API, and for the upload of a file, seconds
REQUEST_S = 15.0
#: the operation of the history
UPLOAD = "upload"
_TEXT = "text/plain"


class Uploading(Programs):
    """A pipeline with a client of its API."""

    def __init__(self, ctx: CheckContext, pipeline: LoadedPipeline, case: IngestCase) -> None:
        """Install the packages of the pipeline, and prepare its part of the store.

        :raises NotExercisedError: when the packages cannot be installed here, or the store is unavailable.
        """
        super().__init__(ctx, pipeline)
        self.case = case
        #: seconds of all observations count from here, on the monotonic clock
        self.began = time.monotonic()
        self.uploads: dict[int, Upload] = {}
        #: the answers to requests for an address, by the number of the upload
        self.answers: dict[int, HttpResponse] = {}
        self._values: dict[int, Values] = {}
        self._contents: dict[int, bytes] = {}
        self._journal: Journal | None = None
        #: whether the API has given an address in this check
        self._has_address = False

    @property
    def seconds(self) -> float:
        """The seconds since the beginning of the check."""
        return time.monotonic() - self.began

    def record(self, journal: Journal) -> None:
        """Write operations to this history from now on."""
        self._journal = journal

    # --- the API -----------------------------------------------------------------------------------

    def start(self, *workers: str) -> None:
        """Start the API and workers, and wait until the API answers.

        :raises NotExercisedError: when it does not answer in time.
        """
        self.start_api()
        for name in workers:
            self.start_worker(name)
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Wait until the API answers its health route, or accepts a connection if it has none.

        :raises NotExercisedError: when it does not in time.
        """
        health = self.pipeline.file.health

        def ready() -> None:
            self.ctx.require_undisturbed()
            self.require_loadable()
            if API in self.given_up:
                raise TimedOutError("it exits again and again")
            if not health:
                if not self.listens():
                    raise NotYet("nothing listens on its port")
            elif not (answer := self.get(health, 2.0)).succeeded:
                raise NotYet(f"GET {health}: {answer}")

        try:
            poll(ready, what="the API", deadline_s=self.pipeline.file.starts_s)
        except TimedOutError as error:
            last = next(iter(self.output_of(API).splitlines()[-1:]), "it printed nothing")
            key = "health" if health and self.listens() else "commands.api"
            said = f"the API did not become ready: {error.what}; its last line: {last}"
            raise error_of(self.pipeline, Misfit(key, said)) from None

    @property
    def caller(self) -> Caller | None:
        """Who uploads; None for a pipeline without users."""
        return next(iter(self.pipeline.file.callers), None)

    def site(self) -> Site:
        """Return the API as a host."""
        ctx = self.ctx
        return Site(
            name=ctx.topology.name,
            evidence_class=EvidenceClass.CI,
            base_url=f"http://127.0.0.1:{self.port}",
            callers=self.pipeline.file.callers,
            target=ctx.target,
            trail=lambda: ctx.lab.connect_admin(self.database),
            application=ctx.client,
            stopped=lambda: ctx.is_ended,
            trust_env=False,
        )

    def request(self, step: Step, values: Values, deadline_s: float = REQUEST_S) -> HttpResponse:
        """Send one request to the API."""
        with self._client() as client:
            return client.send(step, values, deadline_s)

    def get(self, path: str, deadline_s: float = REQUEST_S) -> HttpResponse:
        """Send a GET request without a caller's headers, such as to `/ready`."""
        with self._client() as client:
            return client.get(path, deadline_s)

    def _client(self) -> HttpClient:
        from harness.host.http_client import HttpClient  # noqa: PLC0415 -- few processes send requests

        return HttpClient(self.site())

    # --- uploads -----------------------------------------------------------------------------------

    def plan(
        self,
        contents: bytes | None = None,
        *,
        project: str = "project-a",
        filename: str = "",
        content_type: str = _TEXT,
        end: End = "indexed",
    ) -> Upload:
        """Return a new upload, which was not asked for yet.

        :param contents: of the file; by default a short text that no other file has.
        :param filename: by default one that contains the number of the upload.
        :param end: how it has to end.
        """
        number = len(self.uploads) + 1
        text = f"upload {number} of {self.case}: {secrets.token_hex(16)}\n".encode()
        contents = text if contents is None else contents
        filename = filename or f"file-{number}.txt"
        values = self._values_of(filename, project, content_type)
        self._values[number], self._contents[number] = values, contents
        return self._keep(
            Upload(
                number=number,
                sha256=hashlib.sha256(contents).hexdigest(),
                size=len(contents),
                filename=filename,
                project=project,
                content_type=content_type,
                correlation=values.correlation,
                end=end,
            )
        )

    def _values_of(self, filename: str, project: str, content_type: str) -> Values:
        values = Values(self.caller)
        for name, value in (("filename", filename), ("project", project), ("content_type", content_type)):
            values.keep(name, value)
        return values

    def send_body(self, body: bytes) -> Reply:
        """Ask for an address as the caller does, with another body than the declared one."""
        step, values = self.pipeline.file.presign, self._values_of("file.txt", "project-a", _TEXT)
        headers = {**(self.caller.headers if self.caller else {}), **step.headers}
        if not any(name.lower() == "content-type" for name in headers):
            headers["Content-Type"] = "application/x-www-form-urlencoded" if step.form else "application/json"
        return ask(
            step.method,
            f"http://127.0.0.1:{self.port}{values.text(step.path)}",
            headers={name: values.text(value) for name, value in headers.items()},
            body=body,
            deadline_s=REQUEST_S,
        )

    def presign(self, upload: Upload) -> Upload:
        """Ask the API for an address; an upload without one has an error afterwards."""
        file, values = self.pipeline.file, self._values[upload.number]
        step = file.presign
        if header := file.correlation_header:
            step = replace(step, headers={**step.headers, header: "{correlation}"})
        if self._journal:
            self._journal.invoke(upload.number, 1, UPLOAD, key=str(upload.number), value=upload.sha256)
        answer = self.answers[upload.number] = self.request(step, values)
        if answer.failure or answer.status != step.status:
            self._require_fitting(other_request(step, answer, self.ctx.lab.redact))
            return self._refused(upload, f"the API answered {answer}, expected {step.status}", answer)
        found = kept(step, answer.data)
        if isinstance(found, Misfit):
            self._require_fitting(found)
            return self._refused(upload, found.problem, answer)
        self._has_address = True
        for name, value in found.items():
            values.keep(name, value)
        return self._keep(replace(upload, id=found["id"], key=found["key"], presigned_s=self.seconds))

    def _require_fitting(self, misfit: Misfit | None) -> None:
        """Require that the description fits the API. Once an address was given, the same answer is one of the pipeline.

        :raises DescriptionError: when it does not.
        """
        if misfit and not self._has_address:
            raise error_of(self.pipeline, misfit)

    def expect(self, upload: Upload, end: End) -> Upload:
        """Say how an upload has to end, where this was not known before."""
        return self._keep(replace(upload, end=end))

    def url(self, upload: Upload) -> str:
        """Return the presigned address of an upload."""
        return str(self._values[upload.number].known().get("url", ""))

    def upload_headers(self, upload: Upload) -> dict[str, str]:
        """Return the headers with which a client uploads a file."""
        values = self._values[upload.number]
        return {name: values.text(text) for name, text in self.pipeline.file.upload_headers.items()}

    def put(self, upload: Upload) -> Upload:
        """Upload the file to its presigned address; one that is refused has an error afterwards."""
        if upload.error or not upload.id:
            return upload
        headers, contents = self.upload_headers(upload), self._contents[upload.number]
        answer = ask("PUT", self.url(upload), headers=headers, body=contents, deadline_s=REQUEST_S)
        if not answer.succeeded:
            return self._refused(upload, f"the upload to the presigned address failed: {answer}", answer)
        if self._journal:
            self._journal.answer(upload.number, 1, "ok")
        stored = {one.key for one in self.store.proxy.requests() if one.method == "PUT"}
        if misfit := other_key(self.pipeline.file.presign, upload.key, self.url(upload), stored, self.store.bucket):
            raise error_of(self.pipeline, misfit)
        return self._keep(replace(upload, stored_s=self.seconds))

    def upload(self, contents: bytes | None = None, **about: Any) -> Upload:
        """Ask for an address, and upload a file; see :meth:`plan`."""
        return self.put(self.presign(self.plan(contents, **about)))

    def _refused(self, upload: Upload, error: str, answer: HttpResponse) -> Upload:
        self.ctx.fact("first refusal", self.ctx.facts.get("first refusal") or error)
        if self._journal:
            self._journal.answer(upload.number, 1, "fail" if answer.status or not answer.arrived else "unknown", error)
        return self._keep(replace(upload, error=error))

    def _keep(self, upload: Upload) -> Upload:
        self.uploads[upload.number] = upload
        return upload
