"""Plots, tables and progress bars: they see numbers and text only, no models."""
