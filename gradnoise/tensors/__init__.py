"""Tools on tensors: nested batches, flat vectors, sums, random directions."""
