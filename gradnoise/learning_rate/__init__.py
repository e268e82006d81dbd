"""Numbers in, learning rates and advice out; no tensors."""
