"""The parts of `harness.toml` about readiness: areas of the readiness map, and workflows to decide on.

The file declares no stance and no answer: both follow from the evidence. People sign what they did, item by item.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

_Name = Annotated[str, Meta(pattern=r"^\S(.*\S)?$", max_length=120)]
#: a check's id such as `actor.residue`, or a suite's name such as `actor`
_Check = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]*(\.[a-z0-9.-]+)?$")]
_Word = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9+_-]*$")]

Guidance = Literal[
    "versions-recorded",
    "migrations-in-staging",
    "one-workflow-class",
    "own-worker-and-deploy",
    "workers-configured",
    "side-effects-fenced",
    "runs-inspectable",
    "redaction-before-exposure",
]

#: the rollout guidance: actions that must be done and signed before a workflow class is released
GUIDANCE: dict[Guidance, str] = {
    "versions-recorded": "the versions of library, runtime, database and adapter are documented",
    "migrations-in-staging": "the migrations were applied in staging before production",
    "one-workflow-class": "the rollout covers exactly one workflow class",
    "own-worker-and-deploy": "the workflow was verified through the host's own worker and deployment",
    "workers-configured": "owner ids, number of workers, claim duration and heartbeat are configured",
    "side-effects-fenced": "a job that is delivered twice has its side effect once",
    "runs-inspectable": "state, failures, retries and manual actions of a run can be inspected",
    "redaction-before-exposure": "redaction and access rights were defined before anybody could see data",
}


class ReadinessArea(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[[readiness]]` entry: a feature area, the checks that prove it, and the host's responsibility."""

    #: the name of the feature area
    area: _Name
    #: checks or suites that must be OK; needed unless `not_run` says why nothing runs
    checks: tuple[_Check, ...] = ()
    #: why nothing runs for the area, or for a part of it, in one sentence: the area is then Not shown, with this reason
    not_run: Annotated[str, Meta(max_length=400)] = ""
    #: all topologies of the evidence when empty
    topologies: tuple[_Word, ...] = ()
    #: what the host must do itself, in one sentence
    host_responsibility: Annotated[str, Meta(min_length=10, max_length=400)]
    #: the environment whose audited paths count
    environment: _Word | Literal[""] = ""
    #: the paths that must be OK there, with evidence of class host
    paths: tuple[_Word, ...] = ()


class GuidanceItem(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One signed item of the rollout guidance."""

    #: the item of the guidance
    item: Guidance
    #: the name of the person
    done_by: Annotated[str, Meta(min_length=2)]
    #: YYYY-MM-DD
    on: Annotated[str, Meta(pattern=r"^\d{4}-\d{2}-\d{2}$")]
    #: what was done, in one sentence of at least three words
    statement: Annotated[str, Meta(min_length=20, max_length=400)]
    #: where it is documented: an address, or a file of the project
    link: Annotated[str, Meta(pattern=r"^(https?://\S+|[\w./#-]+)$")]


class Workflow(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[[workflows]]` entry: a workflow class, and the release of the library that it will use."""

    #: the name of the workflow class, which `harness decide` takes
    name: _Name
    #: the version of the library under test, such as 0.4.0
    release: Annotated[str, Meta(pattern=r"^\S+$", max_length=60)]
    #: checks or suites that must be OK
    checks: Annotated[tuple[_Check, ...], Meta(min_length=1)]
    #: all topologies of the evidence when empty
    topologies: tuple[_Word, ...] = ()
    guidance: tuple[GuidanceItem, ...] = ()
    #: the environment where the host's own worker ran the workflow
    environment: _Word | Literal[""] = ""
    #: the audited paths that show it
    paths: tuple[_Word, ...] = ()
