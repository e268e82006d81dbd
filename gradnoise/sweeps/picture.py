"""The runs of a sweep on the plane of batch size and learning rate."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ArgumentError
from ..profiles.results import Results
from ..show.axes import finish, plain_numbers
from ..show.figure import axes_or_new
from ..show.style import CURVATURE, DOTS, FAINT, MIXED, NOISE, SHORT, ink
from ..statistics.estimate import Estimate, short
from .knee import Knee
from .runs import Runs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KINDS: dict[str, dict[str, Any]] = {  # marks that differ without colours
    "stable": {"marker": "o", "mfc": "none", "mec": FAINT},
    "some seeds diverged": {
        "marker": "o", "fillstyle": "bottom", "mfc": CURVATURE, "mfcalt": "none", "mec": CURVATURE,
    },
    "diverged": {"marker": "x", "mec": CURVATURE, "mew": 1.6},
}  # fmt: skip
LOSSES = {"train_loss": "training loss", "test_loss": "test loss"}
FIRM = 10.0  # a curve whose interval is wider than this factor is drawn as a band alone


def sweep(
    sweep: Runs,
    *,
    predictions: Results | None = None,
    best: str | None = "train_loss",
    axes: Axes | None = None,
) -> Axes:
    """Which learning rates diverged at each batch size, and the critical batch size of the fit.

    A mark for each pair of batch size and rate; the fitted largest stable rate ε_∞/(1 + B_c/B)
    with a band from the intervals of ε_∞ and B_c, drawn as a curve where they are narrow enough
    to mean one; the best rates.

    Args:
        sweep: what `gn.sweep` returns.
        predictions: a profile whose limits are drawn in.
        best: what the best learning rates are best by; None leaves them out.
        axes: where to draw; by default in a new Figure. Their scales and limits are set.

    Returns:
        Axes: these.

    Raises:
        ImportError: matplotlib is not installed.
    """
    axes = axes_or_new(axes, height=6)
    sizes = np.geomspace(sweep.batch_sizes[0], sweep.batch_sizes[-1], 60)
    axes.set_yscale("log")
    axes.set_xscale("log", base=2)
    _runs(axes, sweep)
    limits = sweep.lrs[0] / 1.6, sweep.lrs[-1] * 1.6
    axes.set_ylim(*limits)
    found = _knee(axes, sweep, sizes, limits)
    if best is not None:
        _best(axes, sweep, best)
    if predictions is not None:
        _predictions(axes, predictions, sizes, sweep.settings)
    axes.set(xlabel="batch size B (samples)", ylabel="learning rate ε")
    plain_numbers(axes.xaxis)
    optimizer = sweep.settings.get("optimizer")
    whose = f" ({optimizer})" if isinstance(optimizer, str) else ""
    return finish(axes, f"{len(sweep.records)} training runs{whose}: {found}")


def _runs(axes: Axes, sweep: Runs) -> None:
    """A mark for every cell of the grid, of the kind that its seeds are."""
    cells: dict[tuple[int, float], list[bool]] = {}
    for record in sweep.records:
        cells.setdefault((record.run.batch_size, record.run.lr), []).append(record.diverged)
    shares = {cell: sum(seeds) / len(seeds) for cell, seeds in cells.items()}
    for label, look in KINDS.items():
        points = [cell for cell, share in shares.items() if _kind(share) == label]
        if points:
            x, y = zip(*points, strict=True)
            axes.plot(x, y, ms=5.5, lw=0, label=label, **look)


def _kind(share: float) -> str:
    return "stable" if share == 0 else "diverged" if share == 1 else "some seeds diverged"


def _knee(axes: Axes, sweep: Runs, sizes: np.ndarray, limits: tuple[float, float]) -> str:
    """The fitted curve with its band; what it is, in words."""
    try:
        knee = sweep.fit()
    except ArgumentError as error:
        return f"no critical batch size: {str(error).split(';')[0]}"
    scale = knee.batch_size
    low, high = _band(knee, sizes)
    label = "largest stable, interval of the fit"
    if (low > limits[0]).any() or (high < limits[1]).any():  # else it is open both ways
        axes.fill_between(
            sizes, np.clip(low, *limits), np.clip(high, *limits), color=CURVATURE, alpha=0.15,
            lw=0, label=label,
        )  # fmt: skip
    if scale.is_resolved and float((high / np.maximum(low, 1e-300)).max()) <= FIRM:
        curve = [knee.lr(size) for size in sizes]
        label = f"largest stable: {short(float(knee.saturation))}/(1 + {short(float(scale))}/B)"
        axes.plot(sizes, curve, color=CURVATURE, lw=2, label=label)
    return f"critical batch size {_said(scale)}"


def _band(knee: Knee, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """ε_∞/(1 + B_c/B) at the ends of both intervals: wider than an interval of the curve itself."""
    top, scale = knee.saturation, knee.batch_size
    return top.low / (1 + scale.high / sizes), top.high / (1 + max(scale.low, 0.0) / sizes)


def _said(scale: Estimate) -> str:
    return str(scale) if scale.is_resolved else scale.bounds_in_words()


def _best(axes: Axes, sweep: Runs, by: str) -> None:
    found = sweep.best(by).values()
    x, y = [each.batch_size for each in found], [each.lr for each in found]
    label = f"best by {LOSSES.get(by, by)}"
    axes.plot(x, y, "-", color=NOISE, lw=1, marker="*", ms=9, label=label)


def _predictions(axes: Axes, profile: Results, sizes: np.ndarray, settings: dict[str, Any]) -> None:
    landscape = profile.landscape(float(settings.get("momentum", 0.0)))
    inside = sizes[sizes <= profile.population]
    for method, label, style in (
        ("mean_square_lr", "predicted: mean-square limit", SHORT),
        ("max_lr", "predicted: noise-scale rule", MIXED),
    ):
        values = [float(getattr(landscape, method)(size)) for size in inside]
        if not all(map(math.isnan, values)):
            axes.plot(inside, values, color=ink(), lw=1.2, ls=style, label=label)
    stable = float(landscape.stable_lr)
    label = f"full-batch limit {short(stable)}"
    axes.axhline(stable, color=ink(), lw=0.9, ls=DOTS, label=label)
