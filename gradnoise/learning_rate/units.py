"""Units of quantities and limits, by name. No torch is imported here."""

from __future__ import annotations

RATE, SAMPLES = "parameter²/loss", "samples"
SQUARE, CUBE = "loss²/parameter²", "loss³/parameter⁴"

OF_QUANTITIES = {
    "loss": "loss",
    "grad_sq_norm": SQUARE,
    "trace_cov": SQUARE,
    "simple_noise_scale": SAMPLES,
    "grad_curvature": CUBE,
    "trace_hessian_cov": CUBE,
    "noise_scale": SAMPLES,
    "sharpness": "loss/parameter²",
    "curvature_noise_scale": SAMPLES,
}
OF_LIMITS = dict.fromkeys(("stable_lr", "max_lr", "greedy_lr", "mean_square_lr"), RATE)
