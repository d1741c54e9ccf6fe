"""The cause of a failed build, in one sentence, from the build's output."""

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
#: the messages of apt, debootstrap, wget, curl, pip and Docker
_NO_NETWORK = re.compile(
    r"temporary failure (?:in name resolution|resolving)|could not resolve|unable to resolve|name or service not known"
    r"|no such host|network is unreachable|no route to host|could not connect|unable to connect"
    r"|failed getting release file|failed to establish a new connection|connection (?:refused|timed out|reset)"
    r"|i/o timeout|newconnectionerror|readtimeouterror",
    re.IGNORECASE,
)

_ALTERNATIVES = "use another image (--image PRODUCT=REFERENCE), or --engine native"
_NETWORK_HINT = f"set HARNESS_DEBIAN_MIRROR to a reachable mirror, or http_proxy to the proxy; or {_ALTERNATIVES}"


def build_failure(what: str, output: str, *, hint: str = "", otherwise: str = "") -> ImageUnavailableError:
    """Return the error for a failed build: a full disk, a missing network, or another reason.

    :param what: subject and verb of the message, such as "the build of postgres:17 failed".
    :param output: everything that the build printed, and its final error.
    :param hint: what to try if the disk is not full; the default names a mirror, another image and the native engine.
    :param otherwise: the reason, if neither the disk nor the network is the cause.
    """
    detail = "\n".join(output.rstrip().splitlines()[-_DETAIL_LINES:])
    if _DISK_FULL.search(output):
        return ImageUnavailableError(
            f"{what}: the disk is full",
            detail=detail,
            hint="free space (docker system df, harness reap, docker image prune), then run the command again",
        )
    if _NO_NETWORK.search(output):
        return ImageUnavailableError(
            f"{what}: a package server is unreachable (no network, or the wrong mirror)",
            detail=detail,
            hint=hint or _NETWORK_HINT,
        )
    reason = otherwise
    if len(reason) > _LONGEST_REASON:  # Podman quotes the whole step, and says what failed at its end
        reason = f"{reason[: _LONGEST_REASON // 2]} … {reason[-_LONGEST_REASON // 2 :]}"
    return ImageUnavailableError(f"{what}: {reason}" if reason else what, detail=detail, hint=hint or _ALTERNATIVES)


def interrupted(what: str) -> ImageUnavailableError:
    """Return the error for a cancelled build.

    :param what: names the step, such as "the build of postgres:17".
    """
    return ImageUnavailableError(f"{what} was interrupted; nothing was kept")


def wait_for(probe: Callable[[], T], *, what: str, cancelled: Event) -> T:
    """Call `probe` until it returns a value, without a deadline.

    :param probe: raises :class:`NotYet` until its value is ready.
    :param what: names the step, such as "the build of postgres:17".
    :param cancelled: ends the wait when set.
    :raises ImageUnavailableError: when the wait is cancelled.
    """
    try:
        return poll(probe, what=what, deadline_s=float("inf"), interval_s=0.05, cancelled=cancelled)
    except TimedOutError:
        raise interrupted(what) from None
