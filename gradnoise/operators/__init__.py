"""The bridge from a model to linear algebra: matrices that are never formed."""

from .base import Operator
from .foreign import as_operator
from .model import GaussNewton, GradientCovariance, Hessian, PerSampleGradients
from .preconditioned import Preconditioned

__all__ = [
    "GaussNewton",
    "GradientCovariance",
    "Hessian",
    "Operator",
    "PerSampleGradients",
    "Preconditioned",
    "as_operator",
]
