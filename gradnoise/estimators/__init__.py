"""One quantity, one file; each returns Estimates."""

from .density import spectral_density
from .eigenvalues import Sharpness, sharpness
from .noise_scale import NoiseScale, measure_noise_scale, noise_scale, sign_probes
from .sharpness import (
    curvature_noise_scale,
    half_sharpness,
    sample_curvatures,
    sampling_error,
    sharpness_estimate,
)
from .tracker import SharpnessTracker

__all__ = [
    "NoiseScale",
    "Sharpness",
    "SharpnessTracker",
    "curvature_noise_scale",
    "half_sharpness",
    "measure_noise_scale",
    "noise_scale",
    "sample_curvatures",
    "sampling_error",
    "sharpness",
    "sharpness_estimate",
    "sign_probes",
    "spectral_density",
]
