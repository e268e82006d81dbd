"""What all pictures share: where they are drawn, and their colours."""

from __future__ import annotations

from typing import Any

INK, NOISE, CURVATURE, FAINT = "#222222", "#2f6fb0", "#c0492f", "#9a9a9a"


def canvas(width: float = 8, height: float = 5.6) -> tuple[Any, Any]:
    """A matplotlib Figure and its axes, apart from pyplot and every display.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'gradnoise[plot]'") from error
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure, figure.subplots()
