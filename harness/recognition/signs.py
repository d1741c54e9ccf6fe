"""The signs of a product: phrases, names and commands that no other product is known to use.

One sign makes a product likely, because another product may use the same phrase. Two different signs, or the product's
own statement about itself, make it certain.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from harness.recognition.findings import Findings

_CERTAIN = 2


class Sign(Struct, frozen=True, kw_only=True):
    """A text that identifies a product."""

    product: str
    pattern: re.Pattern[str]
    #: what has this text
    where: str


def _sign(product: str, pattern: str, where: str) -> Sign:
    return Sign(product=product, pattern=re.compile(pattern), where=where)


#: in messages of errors, at the login and after it; measured with PgBouncer 1.18, 1.24, 1.26 and Odyssey 1.5.2
ERRORS = (
    _sign("PgBouncer", r"\bunsupported startup parameter", "the refusal of an unknown startup parameter"),
    _sign("PgBouncer", r"^08P01 not allowed$", "the refusal of a login to the console's database"),
    _sign("PgBouncer", r"^08P01 no such database: ", "the refusal of an unknown database"),
    _sign("PgBouncer", r"\bin statement pooling mode", "the refusal of BEGIN"),
    _sign("Odyssey", r"\bodyssey: ", "an error"),
)
#: in the names that prepared statements have on the server
NAMES = (
    _sign("PgBouncer", r"^PGBOUNCER_\d+$", "the server's name of a prepared statement"),
    _sign("Odyssey", r"^odyssey_pstmt_", "the server's name of a prepared statement"),
)


class Signs:
    """Collects the signs of products that a chain shows."""

    def __init__(self) -> None:
        #: product to the observations, each under the sign that it is one of
        self._seen: dict[str, dict[str, str]] = {}
        self._stated: dict[str, str] = {}

    def error(self, text: str) -> None:
        """Add the signs in the text of an error: SQLSTATE and message."""
        self._add_matching(ERRORS, text)

    def name(self, name: str) -> None:
        """Add the signs in the name that a prepared statement has on the server."""
        self._add_matching(NAMES, name)

    def answered(self, product: str, command: str, answer: str) -> None:
        """Add a command that only one product answers."""
        self._seen.setdefault(product, {}).setdefault(command, f"{command} is answered by {answer}")

    def stated(self, product: str, how: str) -> None:
        """Add the statement of a product about itself."""
        self._stated.setdefault(product, how)

    def _add_matching(self, signs: tuple[Sign, ...], text: str) -> None:
        for sign in signs:
            if sign.pattern.search(text):
                self._seen.setdefault(sign.product, {}).setdefault(sign.pattern.pattern, f"{sign.where}: {text}")

    @property
    def products(self) -> list[str]:
        """The products with a sign; those with most evidence first."""
        found = dict.fromkeys((*self._stated, *self._seen))
        return sorted(found, key=self._weight, reverse=True)

    def is_certain(self, product: str) -> bool:
        return self._weight(product) >= _CERTAIN

    def _weight(self, product: str) -> int:
        return _CERTAIN * (product in self._stated) + len(self._seen.get(product, {}))

    def how(self, product: str) -> str:
        """Return the observations that identify a product."""
        texts = [self._stated[product]] if product in self._stated else []
        return "; ".join([*texts, *self._seen.get(product, {}).values()][:_CERTAIN])

    def add_findings(self, findings: Findings) -> None:
        """Add the product, or both names if two products are certain."""
        certain = [product for product in self.products if self.is_certain(product)]
        if certain:
            findings.certain("product", " and ".join(certain), "; ".join(self.how(product) for product in certain))
        elif self.products:
            product = self.products[0]
            findings.likely("product", product, f"{self.how(product)}; a single sign, which others may imitate")
