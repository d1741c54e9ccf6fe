"""The cause of a failed build, in one sentence, from the build's output."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeVar

from msgspec import Struct

from harness.errors import ImageUnavailableError, TimedOutError
from harness.waiting import poll

if TYPE_CHECKING:
    from collections.abc import Callable
    from threading import Event

T = TypeVar("T")

_DETAIL_LINES = 20
_LONGEST_REASON = 240

_ALTERNATIVES = "use another image (--image PRODUCT=REFERENCE), or --engine native"


class Cause(Struct, frozen=True, kw_only=True):
    """A cause of failed builds."""

    #: matches the output of a build that failed for this cause
    pattern: re.Pattern[str]
    #: the cause, as the end of the message
    sentence: str
    #: what to try next
    hint: str
    #: whether the hint applies whatever the caller proposes
    always: bool = False


def _cause(pattern: str, sentence: str, hint: str, *, always: bool = False) -> Cause:
    return Cause(pattern=re.compile(pattern, re.IGNORECASE), sentence=sentence, hint=hint, always=always)


#: the causes and the messages of apt, debootstrap, wget, curl, pip and Docker; the first that matches is reported
CAUSES = (
    _cause(
        r"no space left on device|disk quota exceeded|not enough free space",
        "the disk is full",
        "free space (docker system df, harness reap, docker image prune), then run the command again",
        always=True,
    ),
    _cause(
        r"no such script",
        "the installed debootstrap is older than the suite, and has no script for it",
        f"install a newer debootstrap; or {_ALTERNATIVES}",
    ),
    _cause(
        r"release file for \S+ is expired|release file for \S+ is not valid yet",
        "the package index of the mirror is not valid at this machine's date, because the mirror or the clock is stale",
        f"set HARNESS_DEBIAN_MIRROR to a current mirror, or check the clock; or {_ALTERNATIVES}",
    ),
    _cause(
        r"signed by unknown key|no_pubkey|keyring file not available",
        "this machine does not know the key that signs the suite",
        f"install a newer debian-archive-keyring; or {_ALTERNATIVES}",
    ),
    _cause(
        r"/release:\n.*error 404",
        "the mirror has no such suite",
        f"set HARNESS_DEBIAN_MIRROR to a mirror that has it; or {_ALTERNATIVES}",
    ),
    _cause(
        r"temporary failure (?:in name resolution|resolving)|could not resolve|unable to resolve"
        r"|name or service not known|no such host|network is unreachable|no route to host|could not connect"
        r"|unable to connect|failed getting release file|failed to establish a new connection"
        r"|connection (?:refused|timed out|reset)|i/o timeout|newconnectionerror|readtimeouterror",
        "a package server is unreachable (no network, or the wrong mirror)",
        f"set HARNESS_DEBIAN_MIRROR to a reachable mirror, or http_proxy to the proxy; or {_ALTERNATIVES}",
    ),
)


def build_failure(what: str, output: str, *, hint: str = "", otherwise: str = "") -> ImageUnavailableError:
    """Return the error for a failed build, with its cause from :data:`CAUSES` or another reason.

    :param what: subject and verb of the message, such as "the build of postgres:17 failed".
    :param output: everything that the build printed, and its final error.
    :param hint: what to try, unless the cause has a hint that always applies; the default is the hint of the cause.
    :param otherwise: the reason, if none of the known causes matches.
    """
    detail = "\n".join(output.rstrip().splitlines()[-_DETAIL_LINES:])
    for cause in CAUSES:
        if cause.pattern.search(output):
            chosen = cause.hint if cause.always else hint or cause.hint
            return ImageUnavailableError(f"{what}: {cause.sentence}", detail=detail, hint=chosen)
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
