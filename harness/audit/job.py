"""The actor and the correlation of a job, as a plain map that any job engine can store.

The functions are pure: the process keeps no state, so a job never inherits from another one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.audit.actor import Actor, ActorError

_CONTEXT = ("correlation_id", "job_id")


def job_args(actor: Actor, *, correlation_id: str | None = None, job_id: str | None = None) -> dict[str, Any]:
    """Return the arguments to enqueue in addition to the job's own; None values are left out."""
    context = {"correlation_id": correlation_id, "job_id": job_id}
    return {"actor_ref": actor.reference} | {name: value for name, value in context.items() if value is not None}


def actor_from_args(args: Mapping[str, Any]) -> Actor:
    """Return the actor of a job.

    :raises ActorError: `missing_actor_ref` when the arguments have no actor; otherwise as :meth:`Actor.from_map`.
    """
    reference = args.get("actor_ref")
    if not isinstance(reference, Mapping):
        raise ActorError("missing_actor_ref", "the job's arguments have no actor_ref: enqueue them with job_args()")
    return Actor.from_map(reference)


def context_from_args(args: Mapping[str, Any], **extra: str | None) -> dict[str, Any]:
    """Return correlation_id and job_id for :class:`harness.audit.work.Action`.

    :param extra: values of the two that replace those of `args`.
    :raises TypeError: for any other name.
    """
    if unknown := sorted(set(extra) - set(_CONTEXT)):
        raise TypeError(f"unknown names {', '.join(unknown)}; a job's context is {' and '.join(_CONTEXT)}")
    return {name: extra.get(name, args.get(name)) for name in _CONTEXT}
