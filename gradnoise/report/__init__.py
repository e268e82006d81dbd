"""A profile shown: as text, as a picture, and the bar that passes the time until then."""

from .engine import explain
from .plots import draw
from .progress import Stage, progress_bar
from .text import write

__all__ = ["Stage", "draw", "explain", "progress_bar", "write"]
