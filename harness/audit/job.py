"""Who and what a job works for, in a plain map that any job runner can store.

Pure functions: nothing is kept in the process, so one job never inherits from another.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.audit.actor import Actor, ActorError

_CONTEXT = ("correlation_id", "job_id")


def job_args(actor: Actor, *, correlation_id: str | None = None, job_id: str | None = None) -> dict[str, Any]:
    """Return the arguments to enqueue beside the job's own; what there is not is left out."""
    context = {"correlation_id": correlation_id, "job_id": job_id}
    return {"actor_ref": actor.reference} | {name: value for name, value in context.items() if value is not None}


def actor_from_args(args: Mapping[str, Any]) -> Actor:
    """Return who a job acts for.

    :raises ActorError: `missing_actor_ref` when the arguments have none; else as :meth:`Actor.from_map` does.
    """
    reference = args.get("actor_ref")
    if not isinstance(reference, Mapping):
        raise ActorError("missing_actor_ref", "the job's arguments have no actor_ref: enqueue them with job_args()")
    return Actor.from_map(reference)


def context_from_args(args: Mapping[str, Any], **extra: str | None) -> dict[str, Any]:
    """Return correlation_id and job_id for :class:`harness.audit.work.Action`; `extra` wins.

    :raises TypeError: for an extra that is neither of the two.
    """
    if unknown := sorted(set(extra) - set(_CONTEXT)):
        raise TypeError(f"unknown: {', '.join(unknown)}; a job's context is {' and '.join(_CONTEXT)}")
    return {name: extra.get(name, args.get(name)) for name in _CONTEXT}
