"""Analytic problems with exact answers: model, loss, samples, true values, dynamics of SGD."""

from .dynamics import Dynamics, diverging_lr, stationary_covariance
from .finite_least_squares import FiniteLeastSquares
from .flipped_logistic import FlippedLogistic
from .linear_regression import LinearRegression
from .noisy_quadratic import NoisyQuadratic
from .noisy_quadratic_model import NoisyQuadraticModel
from .problem import Toy, ToyLimits
from .random_curvature import RandomCurvature
from .softmax_regression import SoftmaxRegression
from .truth import Truth

__all__ = [
    "Dynamics",
    "FiniteLeastSquares",
    "FlippedLogistic",
    "LinearRegression",
    "NoisyQuadratic",
    "NoisyQuadraticModel",
    "RandomCurvature",
    "SoftmaxRegression",
    "Toy",
    "ToyLimits",
    "Truth",
    "diverging_lr",
    "stationary_covariance",
]
