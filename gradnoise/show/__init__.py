"""Axes, tables and progress bars: handed data, they know nothing of models."""
