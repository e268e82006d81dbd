"""Training runs from a start: one by one, or many as one program."""
