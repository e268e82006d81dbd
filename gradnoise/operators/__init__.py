"""The bridge from a model to linear algebra: matrices that are never formed."""

from .base import Operator
from .curvature import GaussNewton, Hessian
from .decayed import with_decay
from .foreign import as_operator
from .gradients import GradientCovariance, PerSampleGradients
from .graphs import MEMORY_BUDGET
from .preconditioned import Preconditioned

__all__ = [
    "MEMORY_BUDGET",
    "GaussNewton",
    "GradientCovariance",
    "Hessian",
    "Operator",
    "PerSampleGradients",
    "Preconditioned",
    "as_operator",
    "with_decay",
]
