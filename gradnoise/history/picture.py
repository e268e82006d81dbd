"""A run as pictures, against the step: noise scale and batch size, and the loss."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..show.axes import finish, plain_numbers
from ..show.figure import axes_or_new, check_picture, figure_of, new_panels, save
from ..show.style import CURVATURE, FAINT, LONG, NOISE, ink
from ..show.table import integer
from .run_file import Run
from .summary import summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SMOOTHED = 30  # means of the loss along the run
ROOM = 2  # factor between the values and the edges, for intervals


def noise_scale(run: Run | str | Path, *, title: str = "", axes: Axes | None = None) -> Axes:
    """The noise scale B_simple = trΣ/|G|² along a run, with its intervals, beside the batch size.

    Where only a lower bound is known there is a band without a curve. Black lines are B_simple
    pooled over thirds of the run.

    Args:
        run: the file that a `gn.NoiseMonitor` writes, or what was read from it (`gn.RunPool.run`).
        title: such as the name of the file; the last step is added.
        axes: where to draw; by default in a new Figure. Their scale and limits in y are set.

    Returns:
        Axes: these.

    Raises:
        DataError: the file is not of a monitor.
        OSError: the file cannot be read.
        ImportError: matplotlib is not installed.
    """
    run = _read(run)
    axes = axes_or_new(axes, height=4.8)
    steps, batch = run.column("step"), run.column("batch_size")
    _measured(axes, run)
    axes.plot(steps, batch, color=CURVATURE, lw=1.4, ls=LONG, label="batch size B")
    axes.set(xlabel="step", ylabel="samples")
    plain_numbers(axes.yaxis)
    last = f"to step {integer(run.last('step'))}" if len(run) else "no step measured yet"
    return finish(axes, f"{title} {last}".strip())


def loss(run: Run | str | Path, *, title: str = "", axes: Axes | None = None) -> Axes:
    """The losses of the measured steps along a run, and their means over parts of it.

    Args:
        run: as for `noise_scale`.
        title: such as the name of the file.
        axes: where to draw; by default in a new Figure.

    Returns:
        Axes: these; empty where the loop gave no `step.loss`.

    Raises:
        DataError: the file is not of a monitor.
        OSError: the file cannot be read.
        ImportError: matplotlib is not installed.
    """
    run = _read(run)
    axes = axes_or_new(axes, height=4)
    known = np.isfinite(run.column("loss"))
    steps, losses = (run.column(name)[known] for name in ("step", "loss"))
    many = len(losses) >= 5 * SMOOTHED
    color, width = (FAINT, 0.7) if many else (ink(), 1.2)
    axes.plot(steps, losses, color=color, lw=width, label="loss of a measured step")
    if many:
        means = [
            [part.mean() for part in np.array_split(numbers, SMOOTHED)]
            for numbers in (steps, losses)
        ]
        label = f"mean of {len(losses) // SMOOTHED} of them"
        axes.plot(*means, color=ink(), lw=1.8, label=label)
    axes.set(xlabel="step", ylabel="loss")
    return finish(axes, title)


def draw(run: Run, path: str | Path | None = None, title: str = "") -> Figure:
    """The noise scale, and below it the loss where there is one; saved to `path` when given.

    Args:
        run: with at least one line.
        path: where to save it.
        title: above it, such as the name of the run's file.

    Raises:
        ArgumentError: the file cannot be written, or not in that format.
        ImportError: matplotlib is not installed.
    """
    if path is not None:
        check_picture(path)
    with_loss = bool(np.isfinite(run.column("loss")).any())
    panels = new_panels(1 + with_loss, height=7.2 if with_loss else 4.8)
    noise_scale(run, title=title, axes=panels[0])
    if with_loss:
        loss(run, axes=panels[1])
    figure = figure_of(panels[0])
    if path is not None:
        save(figure, path)
    return figure


def _read(run: Run | str | Path) -> Run:
    return run if isinstance(run, Run) else Run.load(run)


def _measured(axes: Axes, run: Run) -> None:
    """The noise scale of steps and of thirds."""
    steps, value, batch = (run.column(n) for n in ("step", "noise_scale", "batch_size"))
    low, high = (run.column(f"noise_scale_{end}") for end in ("low", "high"))
    found = summary(run) if len(run) else None
    pooled = [part for part in (found.thirds if found else ()) if part.noise_scale.is_resolved]
    bounds = np.where(np.isnan(value), low, np.nan)
    shown = np.concatenate([value, batch, bounds, [float(part.noise_scale) for part in pooled]])
    shown = shown[np.isfinite(shown) & (shown > 0)]
    axes.set_yscale("log")
    if len(shown):
        limits = shown.min() / ROOM, shown.max() * ROOM
        ends = (np.clip(end, *limits) for end in (low, high))
        label = "interval, open above where only a lower bound is known"
        axes.fill_between(steps, *ends, color=NOISE, alpha=0.18, lw=0, label=label)
        axes.set_ylim(*limits)
    axes.plot(steps, value, color=NOISE, lw=1.8, label=r"$B_{simple}$ = trΣ/|G|²")
    for i, part in enumerate(pooled):
        label = "_" if i else r"$B_{simple}$ pooled over a third of the run"
        scale = float(part.noise_scale)
        axes.plot(
            [part.first, part.last], [scale, scale], color=ink(), lw=1.4, marker="|", label=label
        )
