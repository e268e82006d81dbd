"""One table of cases for each package."""
