"""λ, its sampling error, B_curv, batch sharpness, spectral density."""
