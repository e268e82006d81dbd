"""A run as a picture: noise scale and batch size above, the loss below, against the step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..show.axes import CURVATURE, FAINT, INK, NOISE, canvas, finish, plain_numbers
from ..show.table import integer
from .run_file import Run
from .summary import summary

SMOOTHED = 30  # means of the loss along the run
ROOM = 4  # factor between the values and the edges: for intervals, and the legend


def draw(run: Run, path: str | Path | None = None, title: str = "") -> Any:
    """A matplotlib Figure; saved to `path` when given.

    Args:
        run: with at least one line.
        path: where to save it.
        title: above it, such as the name of the run's file.
    """
    with_loss = bool(np.isfinite(run.column("loss")).any())
    figure, axes = canvas(height=6.4 if with_loss else 4.4, rows=1 + with_loss)
    upper, lower = (axes[0], axes[-1]) if with_loss else (axes, axes)
    _noise_scale(upper, run)
    upper.set_title(f"{title} to step {integer(run.last('step'))}".strip(), fontsize=10, color=INK)
    if with_loss:
        _loss(lower, run)
        finish(figure, lower, legend="best")
    lower.set_xlabel("step")
    return finish(figure, upper, path, legend="lower right")


def _noise_scale(axes: Any, run: Run) -> None:
    steps, value, batch = (run.column(n) for n in ("step", "noise_scale", "batch_size"))
    low, high = (run.column(f"noise_scale_{end}") for end in ("low", "high"))
    found = summary(run)
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
        axes.plot([part.first, part.last], [scale, scale], color=INK, lw=1.2, label=label)
    axes.plot(steps, batch, color=CURVATURE, lw=1.4, ls="--", label="batch size B")
    axes.set_ylabel("samples")
    plain_numbers(axes.yaxis)


def _loss(axes: Any, run: Run) -> None:
    known = np.isfinite(run.column("loss"))
    steps, loss = (run.column(name)[known] for name in ("step", "loss"))
    axes.plot(steps, loss, color=FAINT, lw=0.7, label="loss of a measured step")
    if len(loss) >= 5 * SMOOTHED:
        means = [
            [part.mean() for part in np.array_split(numbers, SMOOTHED)] for numbers in (steps, loss)
        ]
        axes.plot(*means, color=INK, lw=1.6, label=f"mean of {len(loss) // SMOOTHED} of them")
    axes.set_ylabel("loss")
