"""Audited paths of a host application."""
