"""Plots, tables and progress bars: of numbers and text only, no models."""
