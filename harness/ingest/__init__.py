"""Ingest pipelines under test: their description, the object store that they use, and the proxy in front of it."""
