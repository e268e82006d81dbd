"""Learning rates and advice from measured numbers; no tensors, no models."""
