"""The published JSON Schemas, and the ones of other projects that reports are validated against."""
