"""Pooling: which of PostgreSQL's features work behind a pooler, and how the others fail."""

from harness.suites.pooling import (
    cancels,
    connections,
    dumps,
    parameter_status,
    recognition,
    sharing,
    state,
    statements,
    transactions,
)

#: in the order of the report; `failures` and `restarts` disrupt other checks, so the catalogue lists them last
MODULES = (statements, state, parameter_status, sharing, transactions, connections, cancels, dumps, recognition)
