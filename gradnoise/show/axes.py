"""The figure and the colours of every plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

INK, NOISE, CURVATURE, FAINT = "#222222", "#2f6fb0", "#c0492f", "#9a9a9a"


def canvas(width: float = 8, height: float = 5.6, rows: int = 1) -> tuple[Any, Any]:
    """A matplotlib Figure and its axes, drawn without pyplot and without a display.

    Args:
        width, height: in inches.
        rows: of panels above one another with one x axis; with several, an array of axes.

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
    return figure, figure.subplots(rows, sharex=True)


def finish(
    figure: Any, axes: Any, path: str | Path | None = None, *, legend: str = "lower right"
) -> Any:
    """The figure with its legend, without the upper and right frame; saved to `path` when given.

    Args:
        figure, axes: as of `canvas`.
        path: where to save it as well; its ending is the format.
        legend: where the legend is put, in matplotlib's words.
    """
    axes.legend(loc=legend, fontsize=8, framealpha=0.95)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.tight_layout()
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


def plain_numbers(axis: Any) -> None:
    """Label a logarithmic axis with numbers as they are, not with powers."""
    axis.set_major_formatter(lambda value, _: f"{value:g}")
