"""Matrices given by their products with vectors; no models."""
