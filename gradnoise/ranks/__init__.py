"""Several processes that measure one model together, each with samples of its own."""
