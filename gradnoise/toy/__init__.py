"""Analytic problems with exact answers: model, loss, samples and truth of each."""

from .flipped_logistic import FlippedLogistic
from .linear_regression import LinearRegression
from .noisy_quadratic import NoisyQuadratic
from .softmax_regression import SoftmaxRegression
from .truth import Truth

__all__ = ["FlippedLogistic", "LinearRegression", "NoisyQuadratic", "SoftmaxRegression", "Truth"]
