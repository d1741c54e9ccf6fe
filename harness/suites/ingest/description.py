"""Mistakes in the description of a pipeline that show only while it runs: Not run, with the file, the key and what was seen.

A pipeline that behaves badly is an Issue. A route, a path, a query or a command that does not fit the pipeline shows
nothing about it.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import msgspec
from msgspec import Struct

from harness.checks.judges.ingest_reading import counter_of
from harness.checks.record import NotExercisedError
from harness.config import close_to
from harness.host.site import value_at

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from harness.database import Client
    from harness.host.declarations import Step
    from harness.host.http_response import HttpResponse
    from harness.ingest.loading import LoadedPipeline
    from harness.job_engines.workers import WorkerExit
    from harness.suites.ingest.asking import Reply

#: a program that cannot be loaded ends within, seconds; a later exit counts by its last line only
_LOADS_S = 10.0
#: lines before the end of a program that may say why it cannot be loaded
_LAST_LINES = 20
#: a shell's exit codes: the program cannot be executed, and it is missing
_NO_PROGRAM = (126, 127)
#: what interpreters print about a module, a file or a package that is missing or cannot be read
_CANNOT_LOAD = re.compile(
    r"\b(ModuleNotFoundError|ImportError|SyntaxError|IndentationError): \S"
    r"|\bNo module named \S|can't open file .*\[Errno 2\]|Could not import module \S"
    r"|\bCannot find (module|package) |ERR_MODULE_NOT_FOUND|cannot load such file -- |Could not find or load main class"
    r"|Unable to load celery application|^(\S*sh|\S+: (line )?\d+): \S+: (command )?not found$"
)
#: answers that say that the request itself is another one than the API expects, by the key that is about it
_OTHER_REQUEST: dict[int, str] = {
    HTTPStatus.NOT_FOUND: "presign.path",
    HTTPStatus.METHOD_NOT_ALLOWED: "presign.method",
    HTTPStatus.UNAUTHORIZED: "callers",
    HTTPStatus.FORBIDDEN: "callers",
    HTTPStatus.BAD_REQUEST: "presign.json",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "presign.json",
    HTTPStatus.UNPROCESSABLE_ENTITY: "presign.json",
}
#: of a probe: nothing is served there
NO_ROUTE = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.GONE})
_LONGEST_QUOTE = 160
_MOST_NAMES = 8
_KINDS = {dict: "a table", list: "a list", bool: "true or false", type(None): "null"}


class DescriptionError(NotExercisedError):
    """The description of the pipeline does not fit the pipeline, so that no case says anything about it."""


class Misfit(Struct, frozen=True):
    """One mistake."""

    #: such as `presign.keep`
    key: str
    #: what was seen and what was expected, without a full stop
    problem: str


def error_of(pipeline: LoadedPipeline, misfit: Misfit) -> DescriptionError:
    """Return the error that ends a case: the file, the key, and what was seen."""
    return DescriptionError(f"{pipeline.at(misfit.key)}: {misfit.problem}")


# --- programs --------------------------------------------------------------------------------------------


def unloadable(exits: Iterable[WorkerExit], output: Callable[[str], str]) -> tuple[str, str] | None:
    """Return a program that cannot be loaded, and the line that says so; None if each one can.

    :param output: returns the last lines that a program printed.
    """
    for one in exits:
        lines = [one.last_line]
        if one.exit_code is not None and one.ran_s < _LOADS_S:
            lines += reversed(output(one.worker).splitlines()[-_LAST_LINES:])
        if said := next((line.strip() for line in lines if _CANNOT_LOAD.search(line.strip())), ""):
            return one.worker, said
        if one.exit_code in _NO_PROGRAM and one.ran_s < _LOADS_S:
            return one.worker, one.last_line or f"exit code {one.exit_code}"
    return None


# --- requests for an address -----------------------------------------------------------------------------


def other_request(step: Step, answer: HttpResponse, redact: Callable[[str], str]) -> Misfit | None:
    """Return why the API does not take the declared request at all; None if its answer is about something else."""
    asked = f"the API answers {answer.status} to {step.method} {step.path}"
    if answer.succeeded:
        return Misfit("presign.status", f"{asked}, expected {step.status}") if answer.status != step.status else None
    if answer.failure:
        return None
    if HTTPStatus.MULTIPLE_CHOICES <= answer.status < HTTPStatus.BAD_REQUEST:
        return Misfit("presign.path", f"{asked}, which is a redirect")
    if (key := _OTHER_REQUEST.get(answer.status)) is None:
        return None
    said = "" if answer.data is None else f": {quoted(answer.data, redact)}"
    return Misfit("presign.form" if key == "presign.json" and step.form else key, f"{asked}{said}")


def kept(step: Step, data: Any) -> dict[str, str] | Misfit:
    """Return what an answer holds at the declared paths, as texts, or why it does not."""
    found: dict[str, str] = {}
    for name, path in step.keep.items():
        try:
            value = value_at(data, path)
        except KeyError:
            return Misfit("presign.keep", f"{name}: the API's answer has no value at {path!r}; {_paths(data)}")
        if isinstance(value, dict | list | bool | None) or value == "":
            kind = _KINDS.get(type(value), "empty")
            return Misfit(
                "presign.keep", f"{name}: the value at {path!r} of the API's answer is {kind}, expected a text"
            )
        found[name] = str(value)
    if "://" not in found["url"]:
        said = f"the value at {step.keep['url']!r} of the API's answer is not an address"
        return Misfit("presign.keep", f"url: {said}; {_paths(data)}")
    return found


def other_key(step: Step, key: str, url: str, stored: Collection[str], bucket: str) -> Misfit | None:
    """Return why the declared key is not that of the object; None if it is, or if nothing shows it.

    :param key: as the API's answer has it.
    :param stored: the keys of all uploads that reached the store.
    """
    if key in stored:
        return None
    of_url = unquote(urlsplit(url).path).removeprefix(f"/{bucket}/")
    if of_url not in stored:
        return None
    path = step.keep["key"]
    return Misfit(
        "presign.keep", f"key: the value at {path!r} is {key!r}, but the address is for the object {of_url!r}"
    )


def other_id(step: Step, identity: str, key: str, ids: Mapping[str, str]) -> Misfit | None:
    """Return why the query's id is not that of the API's answer; None if it is, or if nothing shows it.

    :param ids: the ids of the query, by the key of the object.
    """
    if identity in ids.values() or key not in ids:
        return None
    path = step.keep["id"]
    said = (
        f"the query has the id {ids[key]!r} for the object {key!r}, but the API's answer has {identity!r} at {path!r}"
    )
    return Misfit("sql.uploads", said)


def _paths(data: Any) -> str:
    if isinstance(data, dict):
        return f"it has {_some([str(name) for name in data])}"
    return "it is not a JSON object" if data is not None else "it is not JSON"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f"{', '.join(names[:_MOST_NAMES]) or 'nothing'}{more}"


def quoted(data: Any, redact: Callable[[str], str]) -> str:
    """Return the beginning of an answer, without secrets."""
    text = redact(msgspec.json.encode(data).decode())
    return text if len(text) <= _LONGEST_QUOTE else f"{text[:_LONGEST_QUOTE]}…"


def no_counter(path: str, counter: str, answer: Reply) -> Misfit | None:
    """Return why the declared counter cannot be read; None if it can.

    :param answer: to a request for the metrics, after an upload was indexed.
    """
    if answer.status in NO_ROUTE:
        return Misfit("metrics", f"the API answers {answer.status} to GET {path}")
    if not answer.succeeded or counter_of(answer.text, counter) is not None:
        return None
    names = {re.split(r"[{ ]", line, maxsplit=1)[0] for line in answer.text.splitlines() if line and line[0] != "#"}
    near = close_to(counter, names) or f"the answer has {_some(sorted(names))}"
    return Misfit("indexed_counter", f"GET {path} shows no {counter}: {near}")


# --- tables ----------------------------------------------------------------------------------------------

_TABLES = """
SELECT c.oid::regclass::text FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner
WHERE c.relkind = 'r' AND r.rolname = %s
ORDER BY 1
"""


def table_with(admin: Client, key: str, owner: str) -> str:
    """Return a table of a role with a row about an object; "" if none has one."""
    for (table,) in admin.rows(_TABLES, [owner]):
        named = str(table).replace("%", "%%")
        query = f"SELECT EXISTS (SELECT FROM ONLY {named} one WHERE position(%s IN one::text) > 0)"
        if admin.value(query, [key]):
            return str(table)
    return ""
