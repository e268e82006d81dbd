"""Numbers before they mean anything: nested batches, flat vectors, sums, random directions."""
