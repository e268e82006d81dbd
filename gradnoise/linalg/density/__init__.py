"""The density of all eigenvalues: stochastic Lanczos quadrature."""
