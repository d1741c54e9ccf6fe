"""What is at the end of a connection string: found by asking and trying, instead of believing what is declared.

Everything is found with the rights of an ordinary role. Every transaction is read-only and rolled back, and no
setting, lock, temporary table, prepared statement or session stays behind.
"""
