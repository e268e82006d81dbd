"""Steps against samples: what a batch size costs in both."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ..errors import NotMeasuredError
from ..show.axes import few_numbers, finish
from ..show.figure import axes_or_new
from ..show.style import CURVATURE, FAINT, NOISE, WORDS, ink
from ..show.words import put
from ..statistics.estimate import Estimate, short
from .results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SPAN = 32.0  # of B over the noise scale that is shown, at least, and its inverse
FARTHEST = 1e4  # from the noise scale, as a factor
LARGE = 10**6  # batch sizes from here on are rounded to three digits
TICK = 4  # factor between the batch sizes along the curve


def trade_off(profile: Results, *, axes: Axes | None = None) -> Axes:
    """How many more steps a small batch needs, and how many more samples a large one.

    A run at batch size B takes S/S_min = 1 + B_noise/B times the fewest steps and E/E_min =
    1 + B/B_noise times the fewest samples (McCandlish et al. 2018, arXiv:1812.06162), each batch
    size with its best learning rate. The curve (S/S_min - 1)(E/E_min - 1) = 1 is the same for every
    model; the noise scale tells where on it a batch size lies. The setting in use is drawn with the
    part of the curve that the interval of the noise scale leaves open.

    Args:
        profile: what `gn.profile` returns. Where B_noise has no value, B_simple = trΣ/|G|² stands
            for it, and the title says so.
        axes: where to draw; by default in a new Figure. Their scales and limits are set.

    Returns:
        Axes: these.

    Raises:
        NotMeasuredError: the noise scale is negative, so that nothing can be traded.
        ImportError: matplotlib is not installed.
    """
    name, scale = _scale(profile)
    axes = axes_or_new(axes, 7, 5.6)
    size = profile.setting.batch_size
    low, high = _ends(scale, size)
    ratios = np.geomspace(low, high, 400)  # B over the noise scale
    axes.set(xscale="log", yscale="log", xlim=(1, 1 + 2 / low), ylim=(1, 1 + 2 * high))
    axes.plot(
        *_place(ratios), color=NOISE, lw=1.6, label=f"steps 1 + {name}/B, samples 1 + B/{name}"
    )
    if size:
        _in_use(axes, name, scale, size, (low, high))
    ticks = _ticks(axes, scale, (low, high), profile.population) if scale.is_resolved else []
    axes.set_xlabel("steps of a run (1 = fewest)")
    axes.set_ylabel("samples of a run (1 = fewest)")
    few_numbers(axes.xaxis)
    few_numbers(axes.yaxis)
    said = f"{name} = {scale}" if scale.is_resolved else f"{name} {scale.bounds_in_words()}"
    finish(axes, f"{profile.model}, {profile.samples} samples: {said}")
    _name_ticks(axes, scale, ticks)
    return axes


def _scale(profile: Results) -> tuple[str, Estimate]:
    """B_noise, or B_simple where that alone has a value."""
    full, simple = profile.estimates.get("noise_scale"), profile.simple_noise_scale
    if full is None or (simple.is_resolved and not full.is_resolved):
        found, name = simple, "$B_{simple}$"
    else:
        found, name = full, "$B_{noise}$"
    if found.high <= 0 or float(found) <= 0:
        raise NotMeasuredError(
            "steps and samples are traded where a noise scale is positive; this one is "
            f"{found}; measure elsewhere in training"
        )
    return name, found


def _ends(scale: Estimate, size: float | None) -> tuple[float, float]:
    """The smallest and the largest B over the noise scale that are shown."""
    now = [size / end for end in (float(scale), scale.low, scale.high) if size and end > 0]
    known = [min(max(ratio, 1 / FARTHEST), FARTHEST) for ratio in now if ratio > 0]
    return min([1 / SPAN, *(ratio / 2 for ratio in known)]), max([SPAN, *(2 * r for r in known)])


def _place(ratio: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return 1 + 1 / ratio, 1 + ratio


def _in_use(axes: Axes, name: str, scale: Estimate, size: float, ends: tuple[float, float]) -> None:
    """The batch size in use: a point where the noise scale is known, and its interval."""
    low = max(size / scale.high, ends[0])
    high = min(size / scale.low, ends[1]) if scale.low > 0 else ends[1]
    if low < high and (scale.low > 0 or math.isfinite(scale.high)):
        label = f"B = {size:g} within the interval of {name}"
        part = np.geomspace(low, high, 100)
        axes.plot(
            *_place(part), color=NOISE, lw=10, alpha=0.25, solid_capstyle="butt", label=label,
            zorder=1,
        )  # fmt: skip
    if scale.is_resolved and ends[0] <= size / float(scale) <= ends[1]:
        steps, samples = 1 + float(scale) / size, 1 + size / float(scale)
        label = f"now: B = {size:g}, {short(steps)} × steps, {short(samples)} × samples"
        axes.plot([steps], [samples], "o", color=ink(), ms=8, zorder=5, label=label)


def _ticks(axes: Axes, scale: Estimate, ends: tuple[float, float], population: float) -> list[int]:
    """Batch sizes along the curve, and the critical one where both factors are 2."""
    least, most = max(1.0, ends[0] * float(scale)), min(population, ends[1] * float(scale))
    first, last = (math.log(end) / math.log(TICK) for end in (least, max(most, 1)))
    sizes = [TICK**power for power in range(math.ceil(first), math.floor(last) + 1)]
    axes.plot(
        *_place(np.array(sizes) / float(scale)), "o", color=NOISE, ms=4, zorder=3, lw=0,
        label="batch sizes B",
    )  # fmt: skip
    axes.plot(
        [2], [2], "D", color=CURVATURE, ms=7, zorder=4, lw=0,
        label=f"critical: B = {short(float(scale))}, 2 × both",
    )  # fmt: skip
    axes.plot([2, 2], [1e-9, 2], color=FAINT, lw=0.6, zorder=1)
    axes.plot([1e-9, 2], [2, 2], color=FAINT, lw=0.6, zorder=1)
    return sizes


def _name_ticks(axes: Axes, scale: Estimate, sizes: list[int]) -> None:
    """The batch sizes beside their points, above the curve where nothing else is."""
    look = {"fontsize": WORDS, "ha": "left", "va": "bottom", "color": ink()}
    to_axes = axes.transData - axes.transAxes
    for size in sizes:
        x, y = to_axes.transform(_place(np.array(size / float(scale))))
        put(
            axes,
            str(size) if size < LARGE else short(size),
            [(x + d, y + d) for d in (0.012, 0.02, 0.03)],
            look,
        )
