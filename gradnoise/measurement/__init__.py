"""A model opened once for several measurements, which share their passes."""
