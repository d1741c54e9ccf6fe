"""Whether a project is ready for a release: gates for Python and Elixir projects."""
