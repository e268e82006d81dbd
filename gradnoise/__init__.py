"""gradnoise: how noisy a PyTorch model's gradients are, and how sharp its loss is.

One call measures a model: `print(gradnoise.profile(model, loss_fn, data))`. The names below are
grouped by the room they come from; docs/architecture.md is the map.
"""

from . import toy
from .algebra import (
    Curve,
    Diagonal,
    Eigenpairs,
    SpectralDensity,
    diagonal,
    frobenius_norm,
    lanczos,
    trace,
)
from .errors import (
    ArgumentError,
    CoupledSamplesError,
    CurvatureError,
    DataError,
    EngineError,
    GradNoiseError,
    LossError,
    ModelError,
    NotMeasuredError,
    OperatorError,
    ProfileFileError,
    RandomLossError,
    SweepFileError,
)
from .estimate import Estimate, Status
from .estimators import (
    Alignment,
    Covariance,
    Diagnostics,
    LayerScale,
    NoiseScale,
    Sharpness,
    SharpnessTracker,
    SignalToNoise,
    SimpleNoiseScale,
    TailIndex,
    batch_sharpness,
    cabs_batch_size,
    covariance,
    diagnostics,
    diversity_bound,
    gradient_diversity,
    hill_index,
    inner_product_test,
    layer_noise_scales,
    noise_scale,
    noise_scale_from_batches,
    noise_scale_from_gradients,
    noise_scale_from_gram,
    noise_scale_from_sums,
    norm_test,
    orthogonality_test,
    sharpness,
    sign_noise_scale,
    signal_to_noise,
    simple_noise_scale_from_norms,
    spectral_density,
    spectral_noise_scale,
    stable_index,
    tail_index,
)
from .explain import EngineReport, explain_engine
from .layers import Layer
from .losses import causal_lm, supervised
from .moments import GradientMoments
from .operators import (
    GaussNewton,
    GradientCovariance,
    Hessian,
    PerSampleGradients,
    Preconditioned,
)
from .pergrad import per_sample_gradients, per_sample_sq_norms
from .profile import profile
from .recommendation import Recommendation
from .regime import (
    effective_lr,
    greedy_lr,
    max_lr,
    mean_square_lr,
    regime,
    scale_lr,
    stable_lr,
    temperature,
)
from .result import Profile
from .stability import Landscape, Limits
from .streaming import gradient_moments
from .training import Knee, LrSweep, Sweep, lr_sweep, sweep

__all__ = [
    # vocabulary
    "Estimate",
    "Status",
    "GradNoiseError",
    "ArgumentError",
    "CoupledSamplesError",
    "CurvatureError",
    "DataError",
    "EngineError",
    "LossError",
    "ModelError",
    "NotMeasuredError",
    "OperatorError",
    "ProfileFileError",
    "RandomLossError",
    "SweepFileError",
    # problem
    "supervised",
    "causal_lm",
    # engines
    "per_sample_gradients",
    "per_sample_sq_norms",
    "explain_engine",
    "EngineReport",
    # streaming
    "GradientMoments",
    "gradient_moments",
    "Layer",
    # linear maps
    "GaussNewton",
    "GradientCovariance",
    "Hessian",
    "PerSampleGradients",
    "Preconditioned",
    "Eigenpairs",
    "lanczos",
    "Curve",
    "SpectralDensity",
    "spectral_density",
    "trace",
    "frobenius_norm",
    "Diagonal",
    "diagonal",
    # estimators
    "NoiseScale",
    "noise_scale",
    "LayerScale",
    "layer_noise_scales",
    "Sharpness",
    "SharpnessTracker",
    "sharpness",
    "batch_sharpness",
    "Covariance",
    "Alignment",
    "covariance",
    # estimators on arrays
    "noise_scale_from_gradients",
    "noise_scale_from_gram",
    "noise_scale_from_sums",
    "simple_noise_scale_from_norms",
    "noise_scale_from_batches",
    "SimpleNoiseScale",
    # diagnostics of the field
    "Diagnostics",
    "diagnostics",
    "norm_test",
    "inner_product_test",
    "orthogonality_test",
    "gradient_diversity",
    "diversity_bound",
    "cabs_batch_size",
    "SignalToNoise",
    "signal_to_noise",
    "sign_noise_scale",
    "spectral_noise_scale",
    "TailIndex",
    "tail_index",
    "stable_index",
    "hill_index",
    # verdict
    "effective_lr",
    "temperature",
    "stable_lr",
    "max_lr",
    "greedy_lr",
    "mean_square_lr",
    "scale_lr",
    "regime",
    "Limits",
    "Landscape",
    "Recommendation",
    "Profile",
    "profile",
    # train and see
    "sweep",
    "Sweep",
    "Knee",
    "lr_sweep",
    "LrSweep",
    # truths
    "toy",
]
