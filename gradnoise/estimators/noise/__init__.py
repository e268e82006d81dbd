"""tr(HΣ), GᵀHG and B_noise; layer by layer."""
