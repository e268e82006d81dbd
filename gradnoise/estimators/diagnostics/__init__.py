"""Batch tests, diversity, signal-to-noise, tails."""
