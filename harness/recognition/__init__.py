"""Recognition of the chain behind a connection string: facts are observed or forced, never taken from a declaration.

The rights of an ordinary role are enough. Every transaction is read-only and rolled back. No setting, lock, temporary
table, prepared statement or session remains on the server.
"""
