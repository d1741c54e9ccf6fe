"""Repository gates: what protects a repository's main branch, judged offline and without trust in the repository."""
