"""The call that goes the whole way, and what it returns."""
