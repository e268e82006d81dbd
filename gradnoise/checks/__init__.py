"""`gn.check`: rules that a profile is held to."""
