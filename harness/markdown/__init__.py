"""Markdown documents: tables with the position of each cell, headings and prose."""
