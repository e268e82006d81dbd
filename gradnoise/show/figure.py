"""The figure of a picture: made, laid out, saved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ArgumentError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURE = "pip install matplotlib"


def new_panels(rows: int = 1, width: float = 8, height: float = 5.6) -> list[Axes]:
    """The Axes of a new Figure, drawn without pyplot and without a display.

    Args:
        rows: of panels above one another with one x axis.
        width, height: of the Figure, in inches.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure_class, canvas_class = _matplotlib()
    figure = figure_class(figsize=(width, height), layout="constrained")
    canvas_class(figure)
    return list(figure.subplots(rows, sharex=True, squeeze=False)[:, 0])


def axes_or_new(axes: Axes | None, width: float = 8, height: float = 5.6) -> Axes:
    """The caller's Axes, or those of a new Figure of this size in inches."""
    return new_panels(1, width, height)[0] if axes is None else axes


def figure_of(axes: Axes) -> Figure:
    """The whole figure, also of Axes in a part of it."""
    assert axes.figure is not None
    return axes.figure.canvas.figure


def lay_out(axes: Axes) -> None:
    """Let the layout of the figure find its places, where it has one."""
    figure = figure_of(axes)
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)


def check_picture(path: str | Path) -> None:
    """Before a picture is drawn: matplotlib is there and can write a file of this name.

    Raises:
        ArgumentError: another ending, or no such folder.
        ImportError: matplotlib is not installed.
    """
    _, canvas_class = _matplotlib()
    endings = sorted(f".{kind}" for kind in canvas_class.get_supported_filetypes())
    file = Path(path)
    if file.suffix.lower() not in endings:
        raise ArgumentError(f"cannot write {path}: a picture ends in {', '.join(endings)}")
    if not file.parent.is_dir():
        raise ArgumentError(
            f"cannot write {path}: there is no folder {file.parent}; make it, or give another"
        )


def save(figure: Figure, path: str | Path) -> None:
    """Write a picture.

    Raises:
        ArgumentError: the file cannot be written.
    """
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        why = error.strerror or error
        raise ArgumentError(f"cannot write {path}: {why}; give another path") from error


def _matplotlib() -> tuple[Any, Any]:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f"plots need matplotlib: {CURE}") from error
    return Figure, FigureCanvasAgg
