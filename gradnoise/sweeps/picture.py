"""The runs of a sweep on the plane of batch size and learning rate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ArgumentError
from ..profiles.results import Results
from ..show.axes import CURVATURE, FAINT, INK, NOISE, canvas, finish, plain_numbers
from ..statistics.estimate import short
from .knee import Knee
from .runs import Runs


def draw(
    sweep: Runs,
    path: str | Path | None = None,
    predictions: Results | None = None,
    best: str | None = "train_loss",
) -> Any:
    """A matplotlib Figure; saved to `path` when given."""
    figure, axes = canvas()
    _runs(axes, sweep)
    sizes = np.geomspace(sweep.batch_sizes[0], sweep.batch_sizes[-1], 60)
    axes.set(xscale="log", yscale="log")
    axes.set_xscale("log", base=2)
    try:
        _knee(axes, sweep.fit(), sizes)
    except ArgumentError as error:
        axes.set_title(f"no critical batch size: {str(error).split(';')[0]}", fontsize=9, color=INK)
    if best is not None:
        _best(axes, sweep, best)
    if predictions is not None:
        _predictions(axes, predictions, sizes, sweep.settings)
    axes.set_ylim(sweep.lrs[0] / 1.6, sweep.lrs[-1] * 1.6)
    axes.set_xlabel("batch size B (samples)")
    axes.set_ylabel("learning rate ε")
    plain_numbers(axes.xaxis)
    return finish(figure, axes, path)


def _runs(axes: Any, sweep: Runs) -> None:
    """A dot for every cell of the grid, the fuller the more of its seeds diverged."""
    cells: dict[tuple[int, float], list[bool]] = {}
    for record in sweep.records:
        cells.setdefault((record.run.batch_size, record.run.lr), []).append(record.diverged)
    shares = {cell: sum(seeds) / len(seeds) for cell, seeds in cells.items()}
    kinds = {
        "stable": {"mfc": "none", "mec": FAINT},
        "some seeds diverged": {"mfc": "#e7b3a6", "mec": CURVATURE},
        "diverged": {"mfc": CURVATURE, "mec": CURVATURE},
    }
    for label, look in kinds.items():
        points = [cell for cell, share in shares.items() if _kind(share) == label]
        if points:
            x, y = zip(*points, strict=True)
            axes.plot(x, y, "o", ms=4.5, lw=0, label=label, **look)


def _kind(share: float) -> str:
    return "stable" if share == 0 else "diverged" if share == 1 else "some seeds diverged"


def _knee(axes: Any, knee: Knee, sizes: np.ndarray) -> None:
    value, scale = knee.saturation, knee.batch_size
    curve = [knee.lr(size) for size in sizes]
    label = f"largest stable: {short(float(value))}/(1 + {short(float(scale))}/B)"
    axes.plot(sizes, curve, color=CURVATURE, lw=2, label=label)
    if scale.is_resolved:
        axes.axvspan(scale.low, scale.high, color=CURVATURE, alpha=0.1, lw=0)
        axes.axvline(float(scale), color=CURVATURE, lw=0.8, ls=":")


def _best(axes: Any, sweep: Runs, by: str) -> None:
    found = sweep.best(by).values()
    x, y = [each.batch_size for each in found], [each.lr for each in found]
    axes.plot(x, y, "-", color=NOISE, lw=1, marker="*", ms=9, label=f"best by {by}")


def _predictions(axes: Any, profile: Results, sizes: np.ndarray, settings: dict[str, Any]) -> None:
    landscape = profile.landscape(float(settings.get("momentum", 0.0)))
    inside = sizes[sizes <= profile.population]
    for method, label, style in (
        ("mean_square_lr", "predicted: mean-square limit", "--"),
        ("max_lr", "predicted: noise-scale rule", "-."),
    ):
        values = [float(getattr(landscape, method)(size)) for size in inside]
        axes.plot(inside, values, color=INK, lw=1.2, ls=style, label=label)
    stable = float(landscape.stable_lr)
    axes.axhline(stable, color=INK, lw=0.8, ls=":", label=f"full-batch limit {short(stable)}")
