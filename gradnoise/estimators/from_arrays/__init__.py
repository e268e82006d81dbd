"""The same numbers from gradients, inner products, sums or norms at hand."""
