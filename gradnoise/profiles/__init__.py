"""All measurements of a model in one call, and what it returns: report, picture, file."""
