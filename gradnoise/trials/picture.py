"""The losses of branches against the batch size."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from ..show.axes import CURVATURE, FAINT, INK, NOISE, canvas, finish, plain_numbers
from ..statistics.estimate import Estimate, short
from .results import BranchRuns
from .search import AVERAGED, CONSTANT


def draw(found: BranchRuns, path: str | Path | None = None) -> Any:
    """A matplotlib Figure; saved to `path` when given."""
    losses = {name: found.losses(name) for name in (CONSTANT, AVERAGED)}
    figure, axes = canvas()
    _losses(axes, losses[CONSTANT], NOISE, "o", "batches of the last quarter")
    _losses(axes, losses[AVERAGED], INK, "s", "at the mean weights of the last half")
    lowest = min(float(values.mean()) for values in losses[AVERAGED].values())
    axes.axhspan(
        lowest, lowest + found.tolerance * abs(lowest), color=FAINT, alpha=0.2, lw=0,
        label=f"within {100 * found.tolerance:g} % of the lowest averaged loss",
    )  # fmt: skip
    axes.set_xscale("log", base=2)
    sizes = found.batch_sizes
    axes.set_xlim(sizes[0] / 1.5, sizes[-1] * 1.5)
    axes.set_xticks(sizes)
    _critical(axes, found.critical_batch_size)
    axes.set_xlabel("batch size B (samples)")
    each = max(record.run.steps * record.run.batch_size for record in found.records)
    axes.set_ylabel(f"loss after {each} samples, at the best rate tried")
    axes.set_title(
        f"from a loss of {short(found.start_loss)}, learning rate {short(found.lr)} at batch "
        f"size {found.batch_size}",
        fontsize=9, color=INK,
    )  # fmt: skip
    plain_numbers(axes.xaxis)
    return finish(figure, axes, path, legend="upper left")


def _losses(axes: Any, losses: dict[float, np.ndarray], color: str, mark: str, label: str) -> None:
    """Means over seeds with their standard errors."""
    sizes = list(losses)
    means = [float(values.mean()) for values in losses.values()]
    errors = [
        float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0
        for values in losses.values()
    ]
    axes.errorbar(sizes, means, errors, color=color, marker=mark, ms=5, capsize=3, label=label)


def _critical(axes: Any, scale: Estimate) -> None:
    """The interval of B_crit, and its value where there is one; nothing where it is open."""
    left, right = axes.get_xlim()
    low, high = max(scale.low, left), min(scale.high, right)
    value, ends = float(scale), f"{short(scale.low)} to {short(scale.high)}"
    if math.isnan(value) and (not low < high or (low, high) == (left, right)):
        return
    said = scale.bounds_in_words() if math.isnan(value) else f"{short(value)}, from {ends}"
    axes.axvspan(low, high, color=CURVATURE, alpha=0.1, lw=0, label=f"critical batch size {said}")
    if left < value < right:
        axes.axvline(value, color=CURVATURE, lw=0.8, ls=":")
