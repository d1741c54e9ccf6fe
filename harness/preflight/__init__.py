"""The distribution preflight: gates that a release of a Python or Elixir library must pass."""
