"""Per-sample gradients: one contract, several engines, and the choice among them."""
