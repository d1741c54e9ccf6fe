"""Soak: bounded load for a stated time, every write of it judged at the end.

A load of hours writes millions of rows. Its acknowledgements are therefore not records of the history: those of pgbench
are its own log, which the server reads, and those of the other load are counted by its clients. The server compares all
of them with table and trail, and the final state holds the result. The history holds a sample of each second, and the
operations that failed or are unknown.
"""

from harness.suites.soak import mix, pgbench

MODULES = (pgbench, mix)
