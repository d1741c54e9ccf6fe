"""When a reason for N/A is none: the same rule for what `harness.toml` declares and for tables that people fill."""

from __future__ import annotations

import re

FEWEST_WORDS = 4
#: whoever says so means that it was not run yet
NOT_YET = re.compile(
    r"\b(?:not\s+(?:been\s+)?(?:yet\s+)?(?:been\s+)?(?:tested|run|exercised|tried|verified|checked|done|measured|started)\s+yet|"
    r"not\s+yet\s+(?:been\s+)?(?:tested|run|exercised|tried|verified|checked|done|measured|started|looked)|"
    r"yet\s+to\s+be|to\s+be\s+(?:done|tested|verified|run|determined)|will\s+be\s+(?:tested|run|verified|done)|"
    r"not\s+yet|soon|todo|tbd|(?<!no )pending|untested|next\s+sprint|needs?\s+(?:testing|to\s+be)|later\s*$|"
    r"(?:have|has)(?:n['’]t|\s+not)\s+(?:been\s+)?(?:tested|tried|run|verified|checked|exercised)|"
    r"not\s+(?:been\s+)?(?:tested|tried|run|verified|checked)\s*$)\b",
    re.IGNORECASE,
)
_VAGUE = re.compile(
    r"(?:this\s+is\s+|it\s+is\s+|it's\s+)?(?:not\s+(?:relevant|applicable|needed|necessary|required|important|used|"
    r"in\s+scope)|irrelevant|unnecessary|does\s+not\s+apply|doesn['’]t\s+apply|see\s+(?:above|below|notes?|there)|same|"
    r"ditto|idem|skipped?|ignored?|obvious|trivial|unknown|later|out\s+of\s+scope)\b",
    re.IGNORECASE,
)
_BECAUSE = re.compile(r"(?:\b(?:because|since|as|for|in|while)\b|[:;,—–])\s*(?:\S+\s+){3,}\S+", re.IGNORECASE)


def is_vague(reason: str) -> bool:
    """Say whether a reason names nothing that anybody could look at."""
    return bool(_VAGUE.match(reason.strip())) and not _BECAUSE.search(reason)
