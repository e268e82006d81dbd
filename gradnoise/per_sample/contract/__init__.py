"""The interface of all engines."""
