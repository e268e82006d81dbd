"""Σ: trace, eigenpairs, ranks, and how it lies beside H."""
