"""Per-sample gradients: one contract, several engines, the slowest is the oracle."""

from .choice import ENGINES, Choice, choose
from .contract import Chunk, Engine, Summary, Wanted
from .functional import Functional
from .loop import Loop
from .public import per_sample_gradients, per_sample_sq_norms

__all__ = [
    "ENGINES",
    "Choice",
    "Chunk",
    "Engine",
    "Functional",
    "Loop",
    "choose",
    "per_sample_gradients",
    "per_sample_sq_norms",
    "Summary",
    "Wanted",
]
