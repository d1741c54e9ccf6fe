"""Job engines under test: their targets, their installation, and their programs as processes of this machine."""
