"""Why a build failed, in one sentence, from what its programs printed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeVar

from harness.errors import ImageUnavailableError, TimedOutError
from harness.waiting import poll

if TYPE_CHECKING:
    from collections.abc import Callable
    from threading import Event

T = TypeVar("T")

_DETAIL_LINES = 20
_LONGEST_REASON = 240

_DISK_FULL = re.compile(r"no space left on device|disk quota exceeded|not enough free space", re.IGNORECASE)
#: as apt, debootstrap, wget, curl, pip and Docker print it
_NO_NETWORK = re.compile(
    r"temporary failure (?:in name resolution|resolving)|could not resolve|unable to resolve|name or service not known"
    r"|no such host|network is unreachable|no route to host|could not connect|unable to connect"
    r"|failed getting release file|failed to establish a new connection|connection (?:refused|timed out|reset)"
    r"|i/o timeout|newconnectionerror|readtimeouterror",
    re.IGNORECASE,
)


def failure(what: str, printed: str, *, hint: str = "", otherwise: str = "") -> ImageUnavailableError:
    """Return the error for a build that failed.

    :param what: the sentence's subject and verb, such as "the build of postgres:17 failed".
    :param printed: everything that the build printed, with the final error.
    :param hint: what to try where neither the disk nor the network is the cause.
    :param otherwise: the reason to name in that case.
    """
    detail = "\n".join(printed.rstrip().splitlines()[-_DETAIL_LINES:])
    if _DISK_FULL.search(printed):
        return ImageUnavailableError(
            f"{what}: the disk is full",
            detail=detail,
            hint="harness reap, docker system df, docker image prune; then run this again",
        )
    if _NO_NETWORK.search(printed):
        return ImageUnavailableError(
            f"{what}: a package server did not answer (no network, or a mirror that is not reachable from here)",
            detail=detail,
            hint=hint or "set HARNESS_DEBIAN_MIRROR to a mirror that this machine reaches",
        )
    reason = otherwise
    if len(reason) > _LONGEST_REASON:  # Podman quotes the whole step, and says what went wrong at its end
        reason = f"{reason[:_LONGEST_REASON // 2]} … {reason[-_LONGEST_REASON // 2 :]}"
    return ImageUnavailableError(f"{what}: {reason}" if reason else what, detail=detail, hint=hint)


def interrupted(what: str) -> ImageUnavailableError:
    return ImageUnavailableError(f"{what} was interrupted; nothing of it was kept")


def wait_for(probe: Callable[[], T], *, what: str, cancelled: Event) -> T:
    """Call `probe` until it returns, however long that takes.

    :param what: names the step, such as "the build of postgres:17".
    :raises ImageUnavailableError: when `cancelled` is set first.
    """
    try:
        return poll(probe, what=what, deadline_s=float("inf"), interval_s=0.05, cancelled=cancelled)
    except TimedOutError:
        raise interrupted(what) from None
