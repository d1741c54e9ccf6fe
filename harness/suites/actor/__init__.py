"""Checks that every change is attributed to the actor who made it."""

from harness.suites.actor import actions, basics, identities, kinds, misuse, requiring, sharing, work

#: in the report's order
MODULES = (basics, kinds, identities, sharing, actions, work, misuse, requiring)
