"""The plot of a spectral density, on a logarithmic axis so that single eigenvalues are visible."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ...show.axes import finish
from ...show.figure import axes_or_new, figure_of
from ...show.style import CURVATURE, DOTS, FAINT, NOISE, SHORT, ink
from ...statistics.estimate import Estimate, percent, short
from .curve import Curve
from .measure import SpectralMeasure

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def spectral_density(
    density: SpectralMeasure,
    *,
    matrix: str = "",
    width: float | None = None,
    axes: Axes | None = None,
) -> Axes:
    """How the eigenvalues of a matrix are spread, as a share per unit on a logarithmic axis.

    The density is broadened by a Gaussian; the band is its interval at each point. The height of a
    single eigenvalue and the Ritz values, which are near to the outermost eigenvalues, are marked.

    Args:
        density: what `gn.spectral_density` returns, or `gn.SpectralDensity.of` of any matrix.
        matrix: its name for title and axis, such as "H" or "Σ". Two matrices have different units:
            draw them in two Axes beside one another.
        width: standard deviation of the Gaussian, in the unit of the eigenvalues; by default the
            smallest at which the curve is settled.
        axes: where to draw; by default in a new Figure. Their scales and limits are set.

    Returns:
        Axes: these.

    Raises:
        ArgumentError: see `SpectralDensity.broaden`.
        ImportError: matplotlib is not installed.
    """
    curve = density.curve if width is None else density.broaden(width=width)
    axes = axes_or_new(axes, 8, 5)
    single = 1 / (density.size * curve.width * math.sqrt(2 * math.pi))
    top = float(curve.density.max())
    floor = min(single / 10, top / 1e3)
    axes.set(yscale="log", ylim=(floor, 3 * max(top, float(curve.high.max()))))
    axes.set_xlim(curve.grid[0], curve.grid[-1])
    band = f"{percent(density.level)} interval, point by point"
    low, high = np.maximum(curve.low, floor / 10), np.maximum(curve.high, floor / 10)
    axes.fill_between(curve.grid, low, high, color=NOISE, alpha=0.25, lw=0, label=band)
    label = f"density, broadened by {short(curve.width)}"
    axes.plot(curve.grid, np.maximum(curve.density, floor / 10), color=NOISE, lw=1.4, label=label)
    axes.axhline(single, color=FAINT, lw=1, ls=DOTS, zorder=1, label="height of one eigenvalue")
    _ritz_values(axes, density)
    _zero(axes, density, curve)
    axes.locator_params(axis="x", nbins=max(2, int(axes.bbox.width / figure_of(axes).dpi)))
    axes.set_xlabel(f"eigenvalue{' of ' * bool(matrix)}{matrix}")
    axes.set_ylabel("share of the eigenvalues per unit")
    return finish(axes, _title(density, matrix))


def _ritz_values(axes: Axes, seen: SpectralMeasure) -> None:
    nodes = np.concatenate(seen.nodes)
    heights = np.full_like(nodes, 0.012)
    axes.plot(
        nodes, heights, "|", color=ink(), ms=7, mew=0.7, alpha=0.6, label="Ritz values",
        transform=axes.get_xaxis_transform(),
    )  # fmt: skip


def _zero(axes: Axes, seen: SpectralMeasure, curve: Curve) -> None:
    if not curve.grid[0] < 0 < curve.grid[-1]:
        return
    axes.axvline(0, color=ink(), lw=0.9, ls=SHORT, zorder=1)
    share = seen.cumulative(-curve.width)  # closer to zero the steps resolve nothing
    if seen.lower_edge < -curve.width:
        label = f"below {short(-curve.width)}: {_percent(share)} of the eigenvalues"
        axes.axvspan(curve.grid[0], -curve.width, color=CURVATURE, alpha=0.12, lw=0, label=label)


def _percent(share: Estimate) -> str:
    value, low, high = (f"{100 * part:.3g}" for part in (float(share), share.low, share.high))
    return f"{value} % [{low}, {high}]" if share.is_resolved else f"{low} to {high} %"


def _title(seen: SpectralMeasure, matrix: str) -> str:
    probes = f"{len(seen.rules)} probe{'s' if len(seen.rules) > 1 else ''}"
    return (
        f"Spectrum of {matrix}{', ' * bool(matrix)}{seen.size} eigenvalues, from "
        f"{short(seen.lower_edge)} to {short(seen.upper_edge)}; {probes}, {seen.matvecs} products"
    )
