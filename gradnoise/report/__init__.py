"""A profile shown: as text, as a picture, and the bar that passes the time until then."""

from .plots import draw
from .progress import Stage, progress_bar
from .text import write

__all__ = ["Stage", "draw", "progress_bar", "write"]
