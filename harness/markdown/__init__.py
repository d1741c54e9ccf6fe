"""Markdown documents: blocks, tables and their cells, by position."""
