"""What becomes of PostgreSQL's features behind a pooler."""

from harness.suites.pooling import connections, recognition, sharing, state, statements, transactions

#: in the order of the report; `failures` restarts servers, so the catalogue puts it at its end
MODULES = (statements, state, sharing, transactions, connections, recognition)
