"""The only folder that reads the user's model, loss and data."""
