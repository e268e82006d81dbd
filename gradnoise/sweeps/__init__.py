"""Training runs over learning rates, batch sizes and seeds."""
