"""The command line: what its commands share, and a module for each of them."""
