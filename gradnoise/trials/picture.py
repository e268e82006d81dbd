"""The losses of branches against the batch size."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ..profiles.results import Results
from ..show.axes import finish, plain_numbers
from ..show.figure import axes_or_new
from ..show.style import CURVATURE, DOTS, FAINT, NOISE, SHORT, SOLID, ink
from ..statistics.estimate import Estimate, short
from .results import BranchRuns
from .search import AVERAGED, CONSTANT, MEAN_WEIGHTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def branches(
    branches: BranchRuns, *, predictions: Results | None = None, axes: Axes | None = None
) -> Axes:
    """Losses after equal samples against the batch size, at the best rate of each.

    Means over the seeds with their standard errors, of the last batches and at averaged weights,
    or at the end of a schedule;
    the band above the lowest averaged loss that `tolerance` allows; the interval of the critical
    batch size.

    Args:
        branches: what `gn.branch` returns.
        predictions: a profile whose noise scales are drawn in.
        axes: where to draw; by default in a new Figure. Their scale and limits in x are set.

    Returns:
        Axes: these.

    Raises:
        ArgumentError: no batch size has a stable rate.
        ImportError: matplotlib is not installed.
    """
    scheduled = branches.schedule is not None
    losses = {name: branches.losses(name) for name in (CONSTANT, AVERAGED)}
    axes = axes_or_new(axes, height=6)
    axes.set_xscale("log", base=2)
    if not scheduled:
        _losses(axes, losses[CONSTANT], NOISE, "o", SHORT, "batches of the last quarter")
    loss, where = "averaged loss", MEAN_WEIGHTS
    if scheduled:
        loss, where = "loss", f"at the end (schedule: {branches.schedule})"
    _losses(axes, losses[AVERAGED], ink(), "s", SOLID, where)
    lowest = min(float(values.mean()) for values in losses[AVERAGED].values())
    axes.axhspan(
        lowest, lowest + branches.tolerance * abs(lowest), color=FAINT, alpha=0.3, lw=0,
        label=f"within {100 * branches.tolerance:g} % of the lowest {loss}",
    )  # fmt: skip
    sizes = branches.batch_sizes
    axes.set_xlim(sizes[0] / 1.5, sizes[-1] * 1.5)
    axes.set_xticks(sizes)
    axes.set_xticks([], minor=True)
    _critical(axes, branches.critical_batch_size)
    if predictions is not None:
        _predictions(axes, predictions)
    axes.set_xlabel("batch size B (samples)")
    each = max(record.run.steps * record.run.batch_size for record in branches.records)
    axes.set_ylabel(f"loss after {each} samples, best rate of each")
    plain_numbers(axes.xaxis)
    title = (
        f"from a loss of {short(branches.start_loss)}, learning rate {short(branches.lr)} at batch "
        f"size {branches.batch_size}"
    )
    return finish(axes, title)


def _losses(
    axes: Axes, losses: dict[float, np.ndarray], color: str, mark: str, dashes: object, label: str
) -> None:
    """Means over seeds with their standard errors."""
    sizes = list(losses)
    means = [float(values.mean()) for values in losses.values()]
    errors = [
        float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0
        for values in losses.values()
    ]
    axes.errorbar(
        sizes, means, errors, color=color, marker=mark, ms=5, ls=dashes, capsize=3, label=label
    )


def _critical(axes: Axes, scale: Estimate) -> None:
    """The interval of B_crit, and its value where there is one; nothing where it is open."""
    left, right = axes.get_xlim()
    low, high = max(scale.low, left), min(scale.high, right)
    value, ends = float(scale), f"{short(scale.low)} to {short(scale.high)}"
    if math.isnan(value) and (not low < high or (low, high) == (left, right)):
        return
    said = scale.bounds_in_words() if math.isnan(value) else f"{short(value)}, from {ends}"
    axes.axvspan(low, high, color=CURVATURE, alpha=0.12, lw=0, label=f"critical batch size {said}")
    if left < value < right:
        axes.axvline(value, color=CURVATURE, lw=1, ls=DOTS)


def _predictions(axes: Axes, profile: Results) -> None:
    """The noise scales of a profile, each as a bar at the lower edge that is its interval."""
    left, right = axes.get_xlim()
    shown = (("simple_noise_scale", "simple", "v"), ("noise_scale", "noise", "d"))
    for place, (name, below, mark) in enumerate(shown):
        scale = profile.estimates.get(name)
        if scale is None or not (scale.low > 0 or math.isfinite(scale.high)):
            continue
        low, high = (min(max(end, left), right) for end in (scale.low, scale.high))
        said = f"= {scale}" if scale.is_resolved else scale.bounds_in_words()
        axes.plot(
            [low, high], [0.02 + 0.03 * place] * 2, color=ink(), lw=3, alpha=0.5, zorder=1,
            transform=axes.get_xaxis_transform(),
        )  # fmt: skip
        value = float(scale) if left < float(scale) < right else math.nan
        axes.plot(
            [value], [0.02 + 0.03 * place], color=ink(), marker=mark, ms=7, lw=0,
            transform=axes.get_xaxis_transform(), label=f"profile: $B_{{{below}}}$ {said}",
        )  # fmt: skip
