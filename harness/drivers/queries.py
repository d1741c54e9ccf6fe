"""The queries of the application: four texts with a number each, whose answers show a mix-up of statements.

All texts take and return the same types. If a driver runs another client's statement under a name that two drivers
generated independently, the server reports no error, and only the answer is wrong. Each client starts with another
text or uses the opposite order, so that the first generated name means another text in every process.
"""

from __future__ import annotations

from msgspec import Struct

#: few, because psycopg prepares late and deallocates everything after a rollback: of sixty queries, enough must
#: remain for prepared statements
TOPICS = ("order", "invoice", "customer", "shipment")
#: above the range of smallint, because psycopg sends the smallest integer type that holds a number, and a type that
#: differs between two numbers makes two statements of one text
_FIRST_NUMBER = 100_000


class Query(Struct, frozen=True):
    """One of the texts, and its number."""

    topic: str
    number: int

    def sql(self, placeholder: str) -> str:
        """Return the statement with a driver's placeholder for the number."""
        # CAST instead of `::`, which SQLAlchemy's text() takes for a part of the placeholder
        return f"SELECT '{self.topic} ' || CAST({placeholder} AS integer), pg_backend_pid()"

    def answer(self) -> str:
        """Return the correct answer."""
        return f"{self.topic} {self.number}"


def queries_of(client: int, count: int) -> list[Query]:
    """Return the queries of a client, in order.

    :param client: its number among the clients of all processes.
    """
    first, step = client % len(TOPICS), 1 if client // len(TOPICS) % 2 == 0 else -1
    return [
        Query(TOPICS[(first + step * index) % len(TOPICS)], _FIRST_NUMBER + client * count + index)
        for index in range(count)
    ]
