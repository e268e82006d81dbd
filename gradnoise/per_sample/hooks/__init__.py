"""Per-sample gradients from hooks on the operations of one ordinary pass."""
