"""Train and see: runs over a grid of learning rates and batch sizes, beside what was predicted."""

from .lr_sweep import LrSweep, lr_sweep
from .result import Best, Sweep
from .sweep import sweep
from .threshold import Bracket, Knee

__all__ = ["Best", "Bracket", "Knee", "LrSweep", "Sweep", "lr_sweep", "sweep"]
