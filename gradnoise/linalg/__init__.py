"""A symmetric matrix known by its products; no model."""
