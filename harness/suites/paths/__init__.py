"""Checks of the audited paths of a host application (STG-02)."""
