"""Recognises reasons that do not justify N/A, in `harness.toml` and in tables that people fill."""

from __future__ import annotations

import re
from functools import cache

FEWEST_WORDS = 4
_US = r"(?:we|they|i|team)"
_NOBODY = r"(?:nobody|no[\s-]one|none\s+of\s+us)"
_TRY = r"(?:test|run|exercise|try|verify|check|measure|look)"
_TRIED = (
    r"(?:tested|run|ran|exercised|tried|verified|checked|measured|looked|managed\s+to|found\s+(?:the\s+)?time|"
    r"had\s+(?:(?:the|any|enough|an?)\s+)?(?:time|chance|opportunity))"
)
#: lack of time; a time limit, or "at the same time", does not match
_NO_TIME = (
    r"(?:no|not|\w+n['’]t|lack(?:s|ed|ing)?|short\s+of|little|insufficient)\s+"
    r"(?:(?:have|has|had|got|find|found|enough|the|any|much|sufficient|been|yet|of)\s+){0,3}"
    r"time(?=\s+(?:for|yet|left|so\s+far|until|before|now|in\s+(?:this|the)|to\s+(?!live\b))|\s*(?:[.,;:]|$))|"
    rf"{_US}\s+(?:ran|(?:have\s+|had\s+)?run|were|are)\s+out\s+of\s+time"
)
_PLANS = (
    r"(?:next|coming|upcoming)\s+(?:weeks?|months?|quarters?|years?|sprints?|iterations?|milestones?)|"
    r"this\s+(?:week|month|quarter)|(?:this|current)\s+(?:sprint|iteration)|(?:for|in|by|until)\s+q[1-4]|"
    r"plan(?:s|ned|ning)?\s+to|planned\s+later|(?:it|this|that|path|job|tests?|testing|run)\s+(?:is|are)\s+planned|"
    rf"(?:intends?|hopes?|aims?|going|{_US}\s+(?:wants?|means?|expects?))\s+to\s+{_TRY}|"
    rf"(?:{_US}|somebody|someone)(?:['’]ll|\s+will|\s+shall)\s+{_TRY}|postponed|on\s+(?:the|our|a)\s+roadmap"
)
_EFFORT = (
    r"too\s+(?:much|many)\s+(?:work|effort|trouble|hassle)|too\s+(?:hard|difficult|laborious|time-consuming)|"
    rf"{_US}\s+(?:is|are|was|were)\s+too\s+busy|(?:not|\w+n['’]t)\s+worth"
)
_NOT_LOOKED = (
    rf"{_NOBODY}\s+(?:(?:has|have|had|ever|yet)\s+)*{_TRIED}|"
    rf"(?:have|has|had)(?:n['’]t|\s+not|\s+never)\s+(?:(?:yet|ever|been)\s+)*{_TRIED}|"
    rf"{_US}\s+did(?:n['’]t|\s+not)\s+(?:yet\s+)?{_TRY}|g[eo]t(?:ten|ting)?\s+(?:a)?round\s+to"
)
#: phrases of somebody who has not run the test yet: Not run, not N/A
_NOT_YET = (
    rf"\b(?:{_NO_TIME}|{_PLANS}|{_EFFORT}|{_NOT_LOOKED})\b|"
    r"\b(?:not\s+(?:been\s+)?(?:yet\s+)?(?:been\s+)?(?:tested|run|exercised|tried|verified|checked|done|measured|started)\s+yet|"
    r"not\s+yet\s+(?:been\s+)?(?:tested|run|exercised|tried|verified|checked|done|measured|started|looked)|"
    r"yet\s+to\s+be|to\s+be\s+(?:done|tested|verified|run|determined)|will\s+be\s+(?:tested|run|verified|done)|"
    r"not\s+yet|soon|todo|tbd|(?<!no )pending|untested|needs?\s+(?:testing|to\s+be)|later\s*$|"
    r"not\s+(?:been\s+)?(?:tested|tried|run|verified|checked)\s*$)\b"
)
_VAGUE = re.compile(
    r"(?:this\s+is\s+|it\s+is\s+|it's\s+)?(?:not\s+(?:relevant|applicable|needed|necessary|required|important|used|"
    r"in\s+scope)|irrelevant|unnecessary|does\s+not\s+apply|doesn['’]t\s+apply|see\s+(?:above|below|notes?|there)|same|"
    r"ditto|idem|skipped?|ignored?|obvious|trivial|unknown|later|out\s+of\s+scope)\b",
    re.IGNORECASE,
)
_BECAUSE = re.compile(r"(?:\b(?:because|since|as|for|in|while)\b|[:;,—–])\s*(?:\S+\s+){3,}\S+", re.IGNORECASE)


@cache
def _not_yet() -> re.Pattern[str]:
    return re.compile(_NOT_YET, re.IGNORECASE)  # on first use: few processes read reasons, and it takes 20 ms


def not_yet(reason: str) -> str:
    """Return the phrase by which a reason says that nobody has run the test yet; "" without one."""
    found = _not_yet().search(reason)
    return found[0] if found else ""


def is_vague(reason: str) -> bool:
    """Return whether a reason names nothing that a reader could verify."""
    return bool(_VAGUE.match(reason.strip())) and not _BECAUSE.search(reason)
