"""The outcome of a feature in one check, compared with what is documented for the products that run."""

from __future__ import annotations

from msgspec.structs import replace

from harness.checks.clients import CheckClients
from harness.checks.conditions import facts_of
from harness.checks.documented import WORKS, BehaviourEntry, Documented, better_than, compare, documented
from harness.model import Behaviour, Expectation, Outcome, Severity

#: the name of the expectation that compares the outcome of a feature with the documented one
OUTCOME = "outcome"
#: of an outcome that differs from the documented one
_SEVERITIES = {
    Behaviour.WRONG: Severity.P0,
    Behaviour.LEAKS: Severity.P0,
    Behaviour.LOST: Severity.P1,
    Behaviour.FAILS: Severity.P1,
    Behaviour.HANGS: Severity.P1,
    Behaviour.WORKS: Severity.P2,
}


class CheckOutcomes(CheckClients):
    """Judges outcomes of features by their documentation."""

    def documented(self, feature: str, *, defects: bool = True) -> BehaviourEntry | None:
        """Return the documented behaviour of a feature here: the pooler's entry, else PostgreSQL's, else None.

        :param feature: the name of a pooling check without its suite, or of a driver check with `driver-` before it.
        :param defects: whether to include behaviour that only the product's issue tracker describes.
        """
        return self._documented(feature, defects=defects).entry

    def _documented(self, feature: str, *, defects: bool = True, option: str = "") -> Documented:
        possible: tuple[BehaviourEntry, ...] = ()
        for facts in facts_of(self.topology, self._lab.evidence):
            found = documented(feature, replace(facts, option=option) if option else facts, defects=defects)
            possible += found.possible
            if found.entry:
                return Documented(entry=found.entry, possible=possible)
        return Documented(possible=possible)

    def _better_than(self, feature: str) -> str:
        found = (better_than(feature, facts) for facts in facts_of(self.topology, self._lab.evidence))
        return next(filter(None, found), "")

    def foreseen(self, feature: str, *, option: str = "") -> tuple[Outcome, ...]:
        """Return the expected outcomes of a feature: the documented ones, by default that it works.

        :param option: the setting that a client sends in its startup options, for the feature `startup-options`.
        """
        return self._documented(feature, option=option).outcomes()

    def judge(self, feature: str, title: str, observed: Outcome) -> None:
        """Compare the outcome of a feature with the documented one, and set the severity of a difference.

        An undocumented wrong answer or leak is P0. A documented outcome that is not `works` is recorded as a limit. A
        defect that only the product's issue tracker describes stays an Issue. A feature that works where a limit is
        documented is better than documented, and no Issue. Only a control is judged strictly: the check has to notice
        it when the feature begins to work, too.

        :param feature: see :meth:`documented`.
        :param title: the feature in words, for the limit.
        """
        found, right = self._documented(feature), self._documented(feature, defects=False)
        compared = compare(observed, found, right, strictly=self.sabotaged)
        held = compared.better or observed in compared.expected
        expected = " or ".join(map(str, compared.expected))
        shown = f"{expected}, or better" if compared.better else expected
        if not self.add(Expectation(name=OUTCOME, expected=shown, observed=str(observed), held=held)):
            return  # the harness had ended the probe: the outcome is not the feature's
        if observed == WORKS and held and not compared.better:
            compared = replace(compared, better_than=self._better_than(feature))
        self.feature = compared
        if compared.better:
            self.fact("better than documented", f"documented: {expected} ({compared.source})")
        elif compared.better_than:
            self.fact("better than in the version before", compared.better_than)
        elif held and observed != WORKS:
            self.documented_limit(f"{title}: {observed}", compared.source)
        if not held:
            self.severity = _SEVERITIES[observed.behaviour]
