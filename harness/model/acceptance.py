"""What people answer for: accepted Issues, checks in quarantine, and statements that operators sign."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

#: an address without a login: it is printed
Link = Annotated[str, Meta(pattern=r"^https?://(?![^/\s]*@)\S+\Z")]
#: one line that names somebody: it is printed to logs
Owner = Annotated[str, Meta(pattern=r"^(?=.*\S)[^\x00-\x1f\x7f-\x9f\u2028\u2029]+\Z")]


class KnownIssue(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An Issue that its owner accepts until a date. The report still shows it, but it does not fail the run.

    A defect in the issue tracker of a pooler is known as well: up to the version that its entry in
    `topologies/behaviour/` ends with.
    """

    #: the id of the check
    check: str
    #: where the Issue is discussed
    link: Link
    #: who accepts it
    owner: Owner
    #: the last day on which it is accepted, YYYY-MM-DD; in evidence, empty for a defect of a pooler, whose entry ends
    #: with a version
    expires: Annotated[str, Meta(pattern=r"^(\d{4}-\d{2}-\d{2})?$")]
    #: names of topologies and environments; all when empty
    topologies: tuple[str, ...] = ()


class Quarantine(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A check whose verdict is not reliable until a date: it runs and is reported, and does not decide the exit code.

    A known Issue says what is broken. An entry here says that the verdict changes although nothing else does. After its
    date the check decides the exit code again.
    """

    #: the id of the check
    check: str
    #: where its verdict is investigated
    link: Link
    #: who investigates it
    owner: Owner
    #: the day of the entry, YYYY-MM-DD; optional here, and needed by `harness gates`
    since: Annotated[str, Meta(pattern=r"^(\d{4}-\d{2}-\d{2})?$")] = ""
    #: the last day on which it does not decide, YYYY-MM-DD
    expires: Annotated[str, Meta(pattern=r"^\d{4}-\d{2}-\d{2}$")]
    #: names of topologies and environments; all when empty
    topologies: tuple[str, ...] = ()


def concerns(entry: KnownIssue | Quarantine, check: str, target: str) -> bool:
    """Return whether an entry is about a check in a topology or an environment."""
    return entry.check == check and (not entry.topologies or target in entry.topologies)


class Attestation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A signed statement of an operator about work that no harness can do."""

    #: what the statement answers
    item: Literal["sensitive-columns-reviewed", "backups-agree-with-retention"]
    #: the name of the operator
    by: Annotated[str, Meta(min_length=2)]
    #: YYYY-MM-DD
    on: Annotated[str, Meta(pattern=r"^\d{4}-\d{2}-\d{2}$")]
    #: one sentence about what was done, of at least three words
    statement: Annotated[str, Meta(min_length=20, max_length=400)]
    #: its source: a document or a ticket
    link: Annotated[str, Meta(pattern=r"^(https?://\S+|[\w./#-]+)$")]
