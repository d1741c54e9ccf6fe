"""Ingest pipelines: a client uploads files to a store, and a worker downloads and indexes them."""
