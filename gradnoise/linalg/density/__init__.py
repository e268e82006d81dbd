"""Where all eigenvalues lie: stochastic Lanczos quadrature."""
