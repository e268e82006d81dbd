"""A number and how sure it is: estimates, intervals, quotients."""
