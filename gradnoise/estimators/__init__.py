"""One quantity, one file; each returns Estimates."""

from .alignment import Alignment
from .batch_bounds import cabs_batch_size, diversity_bound, gradient_diversity
from .batch_sharpness import batch_sharpness
from .batch_tests import inner_product_test, norm_test, orthogonality_test
from .covariance import Covariance, covariance
from .curvature_spread import measure_curvature_spread, sharp_directions
from .density import spectral_density
from .diagnostics import Diagnostics, diagnostics
from .eigenvalues import Sharpness, sharpness
from .from_arrays import noise_scale_from_gradients
from .from_norms import noise_scale_from_batches, simple_noise_scale_from_norms
from .from_products import noise_scale_from_gram, noise_scale_from_sums
from .hill import hill_index
from .layer_scales import LayerScale, layer_noise_scales
from .noise_scale import NoiseScale, measure_noise_scale, noise_scale, sign_probes
from .parts import SimpleNoiseScale
from .shares import Shares, shares_of
from .sharpness import (
    curvature_noise_scale,
    half_sharpness,
    sample_curvatures,
    sharpness_estimate,
)
from .sign_noise_scale import sign_noise_scale
from .signal_to_noise import SignalToNoise, signal_to_noise
from .spectral_noise_scale import spectral_noise_scale
from .tails import TailIndex, stable_index, tail_index
from .tracker import SharpnessTracker

__all__ = [
    "Alignment",
    "Covariance",
    "Diagnostics",
    "LayerScale",
    "NoiseScale",
    "Shares",
    "Sharpness",
    "SharpnessTracker",
    "SignalToNoise",
    "SimpleNoiseScale",
    "TailIndex",
    "batch_sharpness",
    "cabs_batch_size",
    "covariance",
    "curvature_noise_scale",
    "diagnostics",
    "diversity_bound",
    "gradient_diversity",
    "half_sharpness",
    "hill_index",
    "inner_product_test",
    "layer_noise_scales",
    "measure_curvature_spread",
    "measure_noise_scale",
    "noise_scale",
    "noise_scale_from_batches",
    "noise_scale_from_gradients",
    "noise_scale_from_gram",
    "noise_scale_from_sums",
    "norm_test",
    "orthogonality_test",
    "sample_curvatures",
    "sharp_directions",
    "sharpness",
    "sharpness_estimate",
    "sign_noise_scale",
    "shares_of",
    "sign_probes",
    "signal_to_noise",
    "simple_noise_scale_from_norms",
    "spectral_density",
    "spectral_noise_scale",
    "stable_index",
    "tail_index",
]
