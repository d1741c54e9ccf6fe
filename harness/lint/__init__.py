"""Documents that people wrote, judged: statuses, pointers, commands, secrets."""
