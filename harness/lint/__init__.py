"""The linter of adoption documents: statuses, pointers, commands and secrets."""
