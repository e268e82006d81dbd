"""Per-sample gradients: one contract, several engines, the slowest is the oracle."""

from .choice import ENGINES, choose
from .contract import Chunk, Engine, Explained, Summary, Wanted
from .functional import Functional
from .hooks import Hooks
from .loop import Loop
from .public import open_batch, per_sample_gradients, per_sample_sq_norms

__all__ = [
    "ENGINES",
    "Chunk",
    "Engine",
    "Explained",
    "Functional",
    "Hooks",
    "Loop",
    "choose",
    "open_batch",
    "per_sample_gradients",
    "per_sample_sq_norms",
    "Summary",
    "Wanted",
]
