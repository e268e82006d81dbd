"""Answers about a symmetric matrix from its products with vectors; no model is known here."""

from .diagonal import Diagonal, diagonal
from .frobenius import frobenius_norm
from .iteration import Eigenpairs
from .lanczos import lanczos
from .spectrum import Curve, SpectralDensity
from .trace import trace

__all__ = [
    "Curve",
    "Diagonal",
    "Eigenpairs",
    "SpectralDensity",
    "diagonal",
    "frobenius_norm",
    "lanczos",
    "trace",
]
