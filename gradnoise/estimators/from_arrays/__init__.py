"""Noise scales from given gradients, inner products, sums or norms."""
