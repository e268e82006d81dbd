"""Σ: trace, eigenpairs, ranks, and its alignment with H."""
