"""Whether every change is attributed to the actor who made it."""


from harness.suites.actor import actions, basics, misuse, sharing, work

#: in the order of the report
MODULES = (basics, sharing, actions, work, misuse)
