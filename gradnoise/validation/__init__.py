"""Every estimator held to every analytic problem that determines it."""
