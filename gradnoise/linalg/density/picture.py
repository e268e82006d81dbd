"""The plot of a spectral density, on a logarithmic axis so that single eigenvalues are visible."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from ...show.axes import CURVATURE, FAINT, INK, NOISE, canvas, finish
from ...statistics.estimate import Estimate, short
from .curve import Curve
from .measure import SpectralMeasure


def draw(seen: SpectralMeasure, curve: Curve, path: str | Path | None = None) -> Any:
    """A matplotlib Figure; saved to `path` when given."""
    figure, axes = canvas(8.5, 4.8)
    single = 1 / (seen.size * curve.width * math.sqrt(2 * math.pi))
    top = float(curve.density.max())
    floor = min(single / 10, top / 1e3)
    axes.set(yscale="log", ylim=(floor, 3 * max(top, float(curve.high.max()))))
    axes.set_xlim(curve.grid[0], curve.grid[-1])
    band = f"{seen.level:.0%} interval, point by point"
    low, high = np.maximum(curve.low, floor / 10), np.maximum(curve.high, floor / 10)
    axes.fill_between(curve.grid, low, high, color=NOISE, alpha=0.25, lw=0, label=band)
    label = f"density, broadened by {short(curve.width)}"
    axes.plot(curve.grid, np.maximum(curve.density, floor / 10), color=NOISE, lw=1.4, label=label)
    _single(axes, single)
    _ritz_values(axes, seen)
    _zero(axes, seen, curve)
    _words(axes, seen)
    return finish(figure, axes, path, legend="upper right")


def _single(axes: Any, single: float) -> None:
    axes.axhline(single, color=FAINT, lw=0.8, ls=":", zorder=1)
    axes.text(
        0.995, single * 1.08, "one eigenvalue", color=FAINT, fontsize=8, ha="right", va="bottom",
        transform=axes.get_yaxis_transform(),
    )  # fmt: skip


def _ritz_values(axes: Any, seen: SpectralMeasure) -> None:
    nodes = np.concatenate(seen.nodes)
    heights = np.full_like(nodes, 0.012)
    axes.plot(
        nodes, heights, "|", color=INK, ms=7, mew=0.7, alpha=0.6, label="Ritz values",
        transform=axes.get_xaxis_transform(),
    )  # fmt: skip


def _zero(axes: Any, seen: SpectralMeasure, curve: Curve) -> None:
    if not curve.grid[0] < 0 < curve.grid[-1]:
        return
    axes.axvline(0, color=INK, lw=0.9, ls="--", zorder=1)
    share = seen.cumulative(-curve.width)  # closer to zero the steps resolve nothing
    if seen.lower_edge < -curve.width:
        label = f"below {short(-curve.width)}: {_percent(share)} of the eigenvalues"
        axes.axvspan(curve.grid[0], -curve.width, color=CURVATURE, alpha=0.08, lw=0, label=label)


def _percent(share: Estimate) -> str:
    value, low, high = (f"{100 * part:.3g}" for part in (float(share), share.low, share.high))
    return f"{value} % [{low}, {high}]" if share.is_resolved else f"{low} to {high} %"


def _words(axes: Any, seen: SpectralMeasure) -> None:
    axes.set_xlabel("eigenvalue")
    axes.set_ylabel("share of the eigenvalues per unit")
    probes = f"{len(seen.rules)} probe{'s' if len(seen.rules) > 1 else ''}"
    axes.set_title(
        f"Spectrum of {seen.size} eigenvalues, from {short(seen.lower_edge)} to "
        f"{short(seen.upper_edge)}; {probes}, {seen.matvecs} products",
        fontsize=10,
        color=INK,
    )
