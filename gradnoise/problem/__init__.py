"""The only reader of the user's model, loss and data."""
