"""What the user owns, as it was found."""
