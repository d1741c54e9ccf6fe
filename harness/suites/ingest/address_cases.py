"""The case about presigned addresses: what its client can do with one, and what others cannot."""

from __future__ import annotations

import contextlib
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from msgspec.structs import replace

from harness.checks.judges.ingest_service import Address, Refusal, ServiceSeen
from harness.checks.record import NotExercisedError
from harness.suites.ingest.asking import ask, is_http_address
from harness.suites.ingest.awaiting import CLOCKS_S, because, wait_for
from harness.suites.ingest.uploading import REQUEST_S

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.checks.judges.ingest_state import Upload
    from harness.suites.ingest.running import IngestRun

#: the validity of an address whose end is awaited, and the longest that is awaited, seconds
_SHORT_S, _LONGEST_S = 2.0, 10.0


def address(run: IngestRun) -> None:
    """A client uses its address; others try it with a forged signature, for another object, and after its end."""
    run.use_prepared_database()
    run.start()
    upload = run.presign(run.plan(end="any"))
    if upload.error:
        raise NotExercisedError(f"the API gave no address{because(upload)}")
    url, promised_s = run.url(upload), run.settings.url_valid_s
    if not is_http_address(url):
        run.service = ServiceSeen(address=Address(usable="not an HTTP address", promised_s=promised_s))
        return
    upload = run.put(upload)
    seen = Address(
        usable=upload.error or "yes",
        side=next((one.side for one in run.requests() if (one.method, one.key) == ("PUT", upload.key)), ""),
        holds_secret=run.store.service.secret_key in url,
        valid_s=_validity(url),
        promised_s=promised_s,
    )
    run.service = ServiceSeen(address=seen)
    if upload.error:
        return
    refusals = [_attempt(run, upload, *one) for one in _attempts(url, upload)]
    if (valid_s := seen.valid_s) is not None and run.seconds > (upload.presigned_s or 0.0) + valid_s:
        raise NotExercisedError("the address had ended before others could try it")
    run.service = ServiceSeen(address=replace(seen, refusals=tuple(refusals)))
    late = _after_its_end(run)
    if late is None:
        run.ctx.fact("the end of an address", "not awaited: it does not follow the setting URL_VALID_S")
        return
    run.service = ServiceSeen(address=replace(seen, refusals=(*refusals, late)))


def _attempts(url: str, upload: Upload) -> Iterator[tuple[str, str, str, str]]:
    """Yield what others try: its name, the method, the address, and the key that must not change."""
    parts = urlsplit(url)
    forged = f"{url[:-1]}{'0' if url[-1] != '0' else '1'}"
    yield "a forged signature", "PUT", _forged(url) or forged, upload.key
    yield "another object", "PUT", parts._replace(path=f"{parts.path}-other").geturl(), f"{upload.key}-other"
    yield "an address without its signature", "PUT", parts._replace(query="").geturl(), upload.key
    yield "reading with an address for uploads", "GET", url, upload.key
    yield "deleting with an address for uploads", "DELETE", url, upload.key


def _forged(url: str) -> str:
    """Return an address with another signature; "" for one without."""
    parts = urlsplit(url)
    for name in ("X-Amz-Signature=", "Signature="):
        before, found, after = parts.query.partition(name)
        if found and after:
            changed = f"{'0' if after[0] != '0' else '1'}{after[1:]}"
            return parts._replace(query=f"{before}{found}{changed}").geturl()
    return ""


def _attempt(run: IngestRun, upload: Upload, name: str, method: str, url: str, key: str) -> Refusal:
    before = run.store.digest(key)
    headers = run.upload_headers(upload)
    body = b"of somebody else\n" if method == "PUT" else None
    status = ask(method, url, headers=headers, body=body, deadline_s=REQUEST_S).status
    if not status:
        raise NotExercisedError(f"the store did not answer an attempt: {name}")
    return Refusal(attempt=name, status=status, changed=run.store.digest(key) != before)


def _validity(url: str) -> float | None:
    """Return how long an address says that it is valid, in seconds; None where it says nothing."""
    found = {name.lower(): values[0] for name, values in parse_qs(urlsplit(url).query).items()}
    with contextlib.suppress(ValueError, KeyError):
        return float(found["x-amz-expires"])
    return None


def _end_of(url: str) -> float | None:
    """Return the Unix time at which an address ends; None where it says nothing."""
    found = {name.lower(): values[0] for name, values in parse_qs(urlsplit(url).query).items()}
    with contextlib.suppress(ValueError, KeyError):
        signed = datetime.strptime(found["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        return signed.timestamp() + float(found["x-amz-expires"])
    return None


def _after_its_end(run: IngestRun) -> Refusal | None:
    """Try an address that ended; None for a pipeline whose addresses are valid too long to await their end."""
    run.end_programs()
    run.settings = replace(run.settings, url_valid_s=_SHORT_S)
    run.start()
    upload = run.presign(run.plan(end="any"))
    url = run.url(upload)
    ends = _end_of(url) if is_http_address(url) else None
    if upload.error or ends is None or ends - time.time() > _LONGEST_S:
        return None
    wait_for(run, lambda: time.time() > ends + CLOCKS_S, "the end of an address", _LONGEST_S + CLOCKS_S)
    return _attempt(run, upload, "an address after its end", "PUT", url, upload.key)
