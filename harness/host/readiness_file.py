"""What `harness.toml` says about readiness: the areas of the readiness map, and the workflows to decide on.

A stance or an answer is never written there: it follows from the evidence. What people did is signed, item by item.
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

#: the rollout guidance: what has to be done, and signed, before a workflow class is let loose
GUIDANCE: dict[Guidance, str] = {
    "versions-recorded": "the versions of library, runtime, database and adapter are written down",
    "migrations-in-staging": "the migrations were applied in staging before production",
    "one-workflow-class": "the rollout is of one workflow class and no more",
    "own-worker-and-deploy": "the workflow was verified through the host's own worker and deploy path",
    "workers-configured": "owner ids, number of workers, claim time and heartbeat are set",
    "side-effects-fenced": "a side effect that is delivered twice happens once",
    "runs-inspectable": "state, failures, retries and manual actions of a run can be looked at",
    "redaction-before-exposure": "what is redacted, and who may see what, was settled before anybody could look",
}


class ReadinessArea(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[[readiness]]`: a feature area, the checks that show it, and what stays with the host."""

    area: _Name
    checks: Annotated[tuple[_Check, ...], Meta(min_length=1)]
    #: all topologies of the evidence when empty
    topologies: tuple[_Word, ...] = ()
    #: one sentence
    host_responsibility: Annotated[str, Meta(min_length=10, max_length=400)]
    #: where audited paths were taken, and which must have been; rows of other classes than host do not count
    environment: _Word | Literal[""] = ""
    paths: tuple[_Word, ...] = ()


class GuidanceItem(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One item of the rollout guidance, done and signed."""

    item: Guidance
    done_by: Annotated[str, Meta(min_length=2)]
    #: YYYY-MM-DD
    on: Annotated[str, Meta(pattern=r"^\d{4}-\d{2}-\d{2}$")]
    #: one sentence of three words at least: what was done
    statement: Annotated[str, Meta(min_length=20, max_length=400)]
    #: where it can be read again: a document, a ticket
    link: Annotated[str, Meta(pattern=r"^(https?://\S+|[\w./#-]+)$")]


class Workflow(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[[workflows]]`: a workflow class, and the release of the library that it is to run on."""

    name: _Name
    #: the version of the library under test, such as 0.4.0
    release: Annotated[str, Meta(pattern=r"^\S+$", max_length=60)]
    #: what must be green
    checks: Annotated[tuple[_Check, ...], Meta(min_length=1)]
    #: all topologies of the evidence when empty
    topologies: tuple[_Word, ...] = ()
    guidance: tuple[GuidanceItem, ...] = ()
    #: the host's own: where its worker and deploy path took the workflow, and as which audited paths
    environment: _Word | Literal[""] = ""
    paths: tuple[_Word, ...] = ()
