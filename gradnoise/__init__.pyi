# Public names: what type checkers read, and where `__init__.py` imports each from.
from . import pictures, toy
from .checks.check import Checked, check
from .errors import (
    ArgumentError,
    BatchLossError,
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
    RanksError,
    ShardedError,
    SweepFileError,
)
from .estimators.covariance.alignment import Alignment
from .estimators.covariance.covariance import Covariance, covariance
from .estimators.curvature.batch_sharpness import batch_sharpness
from .estimators.curvature.critical_lr import critical_lr
from .estimators.curvature.density import spectral_density
from .estimators.curvature.sharpness import Sharpness, sharpness
from .estimators.curvature.tracker import SharpnessTracker
from .estimators.diagnostics.batch_bounds import (
    cabs_batch_size,
    diversity_bound,
    gradient_diversity,
)
from .estimators.diagnostics.batch_tests import inner_product_test, norm_test, orthogonality_test
from .estimators.diagnostics.diagnostics import Diagnostics, diagnostics
from .estimators.diagnostics.hill import hill_index
from .estimators.diagnostics.sign import sign_noise_scale
from .estimators.diagnostics.signal_to_noise import SignalToNoise, signal_to_noise
from .estimators.diagnostics.spectral import spectral_noise_scale
from .estimators.diagnostics.tails import TailIndex, stable_index, tail_index
from .estimators.from_arrays.gradients import noise_scale_from_gradients
from .estimators.from_arrays.gram import noise_scale_from_gram, noise_scale_from_sums
from .estimators.from_arrays.norms import noise_scale_from_batches, simple_noise_scale_from_norms
from .estimators.from_arrays.result import SimpleNoiseScale
from .estimators.noise.by_layer import LayerScale, layer_noise_scales
from .estimators.noise.noise_scale import noise_scale
from .estimators.noise.sums import NoiseScale
from .history.pool import RunPool
from .integrations.attach import attach
from .learning_rate.advice import Recommendation
from .learning_rate.formulas import (
    effective_lr,
    greedy_lr,
    max_lr,
    mean_square_lr,
    regime,
    scale_lr,
    stable_lr,
    temperature,
)
from .learning_rate.landscape import Landscape, Limits
from .linalg.density.curve import Curve
from .linalg.density.spectral_density import SpectralDensity
from .linalg.diagonal import Diagonal, diagonal
from .linalg.frobenius import frobenius_norm
from .linalg.iteration import Eigenpairs
from .linalg.lanczos import lanczos
from .linalg.trace import trace
from .measurement.gradient_moments import gradient_moments
from .moments.layer import Layer
from .moments.moments import GradientMoments
from .monitor.monitor import NoiseMonitor
from .operators.gauss_newton import GaussNewton
from .operators.gradient_covariance import GradientCovariance
from .operators.gradients import PerSampleGradients
from .operators.hessian import Hessian
from .operators.preconditioned import Preconditioned
from .per_sample.explain import EngineReport, explain_engine
from .per_sample.public import per_sample_gradients, per_sample_sq_norms
from .problem.losses.causal_lm import causal_lm
from .problem.losses.criterion import supervised
from .problem.losses.lightning import lightning
from .problem.losses.masked_lm import masked_lm
from .problem.losses.model_loss import model_loss
from .problem.losses.seq2seq_lm import seq2seq_lm
from .profiles.comparison import Comparison
from .profiles.cost import Cost
from .profiles.estimate import estimate_cost
from .profiles.measurement import Measurement, measure
from .profiles.pool import Pool, pool
from .profiles.profile import Profile, profile
from .profiles.spectra import Spectrum
from .profiles.swing import NoiseAt, Swing, swing
from .statistics.estimate import Estimate, Status
from .sweeps.knee import Knee
from .sweeps.lr_sweep import LrSweep, lr_sweep
from .sweeps.sweep import Sweep, sweep
from .trials.advice import Advice
from .trials.advise import advise
from .trials.branch import branch
from .trials.branches import Branches
from .trials.cooling import cooled

__version__: str

__all__ = [
    # vocabulary
    "Estimate",
    "Status",
    "GradNoiseError",
    "ArgumentError",
    "BatchLossError",
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
    "RanksError",
    "ShardedError",
    "SweepFileError",
    # problem
    "supervised",
    "causal_lm",
    "masked_lm",
    "seq2seq_lm",
    "model_loss",
    "lightning",
    # engines
    "per_sample_gradients",
    "per_sample_sq_norms",
    "explain_engine",
    "EngineReport",
    # moments
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
    "critical_lr",
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
    "Spectrum",
    "profile",
    "Cost",
    "estimate_cost",
    "Comparison",
    "check",
    "Checked",
    # several measurements of one model
    "Measurement",
    "measure",
    "pool",
    "Pool",
    "RunPool",
    "swing",
    "Swing",
    "NoiseAt",
    "cooled",
    # while it trains
    "NoiseMonitor",
    "attach",
    # train and see
    "sweep",
    "Sweep",
    "Knee",
    "lr_sweep",
    "advise",
    "Advice",
    "branch",
    "Branches",
    "LrSweep",
    # pictures
    "pictures",
    # truths
    "toy",
]
