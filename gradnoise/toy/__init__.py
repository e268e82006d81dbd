"""Analytic problems with exact answers: model, loss, samples and truth of each."""

from .linear_regression import LinearRegression
from .noisy_quadratic import NoisyQuadratic
from .truth import Truth

__all__ = ["LinearRegression", "NoisyQuadratic", "Truth"]
