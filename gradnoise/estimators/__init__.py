"""Quantities of a model or of arrays; each returns Estimates."""
