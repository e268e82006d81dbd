"""`gradnoise validate`: every estimator on every analytic problem with a known answer."""
