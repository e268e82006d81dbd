"""The regime map: learning rate against batch size, and where a model stands on it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ..errors import NotMeasuredError
from ..learning_rate.formulas import stable_lr
from ..learning_rate.landscape import Landscape
from ..learning_rate.update_rule import Momentum
from ..show.axes import finish, plain_numbers
from ..show.figure import axes_or_new
from ..show.style import CURVATURE, DOTS, FAINT, LONG, MIXED, NOISE, SHORT, SOLID, ink
from ..statistics.estimate import Estimate, short
from .picture_words import name_isotherms, name_regions
from .regime import batch_grid, rate_ends
from .results import Results, is_unsettled, other_optimizer

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POINTS = 200  # of a curve


def regime_map(profile: Results, *, axes: Axes | None = None) -> Axes:
    """Which learning rates and batch sizes noise limits, and which curvature.

    The plane of batch size B and learning rate ε, with the noise-scale rule
    (2/λ)/(1 + B_noise/B), the mean-square limit, the full-batch limit 2/λ, both noise scales, the
    setting in use and the suggestion. What has an interval is a band. On a dotted line the
    temperature T = ε/((1 - m)B) is the same.

    Args:
        profile: what `gn.profile` returns.
        axes: where to draw; by default in a new Figure. Their scales and limits are set.

    Returns:
        Axes: these.

    Raises:
        NotMeasuredError: curvature was not measured, or is not positive.
        ImportError: matplotlib is not installed.
    """
    _check(profile)
    axes = axes_or_new(axes, height=6.4)
    batches = batch_grid(profile, POINTS)
    landscape = profile.landscape(profile.setting.momentum)
    limits = rate_ends(profile, landscape)
    axes.set_yscale("log")
    axes.set_xscale("log", base=2)
    axes.set(xlim=(batches[0], batches[-1]), ylim=limits)
    slopes = _isotherms(axes, batches, limits, landscape)
    _limits(axes, profile, landscape, batches, limits)
    _noise_scales(axes, profile, batches)
    _points(axes, profile)
    axes.set(xlabel="batch size B (samples)", ylabel=_whose(profile))
    plain_numbers(axes.xaxis)
    finish(axes, f"{profile.model}, {profile.samples} samples: {_headline(profile)}")
    name_regions(axes, landscape)
    name_isotherms(axes, slopes)
    return axes


def _check(profile: Results) -> None:
    if "noise_scale" not in profile.estimates:
        raise NotMeasuredError(
            "the regime map needs curvature, which was not measured; `warnings` says why"
        )
    if not float(profile.sharpness) > 0:
        raise NotMeasuredError(
            "the regime map needs positive curvature, and the sharpness is not positive; measure "
            "later in training"
        )


def _isotherms(
    axes: Axes, batches: np.ndarray, limits: tuple[float, float], landscape: Landscape
) -> dict[int, float]:
    """Lines of equal temperature: ε/B of each by the power of ten that T is."""
    drift = Momentum.of(landscape.optimizer, landscape.momentum).drift  # T = ε·drift/B
    formula = "ε/B" if drift == 1 else "ε/((1 - m)B)"
    first = math.ceil(math.log10(limits[0] / batches[-1] * drift))
    last = math.floor(math.log10(limits[1] / batches[0] * drift))
    slopes = {power: 10.0**power / drift for power in range(first, last + 1)}
    for slope in slopes.values():
        axes.plot(batches, slope * batches, color=FAINT, lw=0.6, ls=DOTS, zorder=1)
    label = f"equal temperature T = {formula}"
    axes.plot([], [], color=FAINT, lw=0.9, ls=DOTS, label=label, zorder=1)
    return slopes


def _limits(
    axes: Axes,
    profile: Results,
    landscape: Landscape,
    batches: np.ndarray,
    limits: tuple[float, float],
) -> None:
    stable = landscape.stable_lr
    factor = f"{stable_lr(1.0, landscape.optimizer, landscape.momentum):.3g}"
    label = f"{factor}/λ = {short(float(stable))}, full-batch limit{_limiting(profile)}"
    axes.axhline(float(stable), color=CURVATURE, lw=1.4, ls=LONG, label=label)
    if stable.low > 0 and math.isfinite(stable.high):
        axes.axhspan(stable.low, stable.high, color=CURVATURE, alpha=0.15, lw=0)
    axes.axhspan(float(stable), limits[1], color=CURVATURE, alpha=0.06, lw=0)
    rule = [landscape.max_lr(batch) for batch in batches]
    _rule(axes, landscape.noise_scale, batches, rule, limits[0], float(stable))
    inside = np.geomspace(batches[0], min(batches[-1], profile.population), 60)
    square = [landscape.mean_square_lr(batch) for batch in inside]
    low, high = [max(s.low, limits[0]) for s in square], [min(s.high, limits[1]) for s in square]
    axes.fill_between(inside, low, high, color=ink(), alpha=0.08, lw=0)
    values = [float(each) for each in square]
    axes.plot(inside, values, color=ink(), lw=1.2, ls=SHORT, label="mean-square limit")


def _rule(
    axes: Axes,
    scale: Estimate,
    batches: np.ndarray,
    rule: list[Estimate],
    bottom: float,
    stable: float,
) -> None:
    """The noise-scale rule: a curve within a band; of bounds, the band alone."""
    if not (scale.low > 0 or math.isfinite(scale.high)):
        return
    name = "noise-scale rule"
    if scale.is_resolved:
        axes.plot(batches, [float(r) for r in rule], color=NOISE, lw=2.2, ls=SOLID, label=name)
    low = [r.low or bottom for r in rule]
    high = [min(r.high, stable) for r in rule]
    band = None if scale.is_resolved else f"{name}: bounds only"
    axes.fill_between(batches, low, high, color=NOISE, alpha=0.2, lw=0, label=band)


def _limiting(profile: Results) -> str:
    """The layer that limits the learning rate, where there are several and one is determined."""
    names = [layer.name or "(root)" for layer in profile.layers.values() if layer.limits_lr]
    return f" (layer {names[0]})" if names and len(profile.layers) > 1 else ""


def _noise_scales(axes: Axes, profile: Results, batches: np.ndarray) -> None:
    scale, simple = profile.noise_scale, profile.simple_noise_scale
    if simple.is_resolved and batches[0] < float(simple) < batches[-1]:
        label = f"$B_{{simple}}$ = {_said(simple)}"
        axes.axvline(float(simple), color=ink(), lw=1.0, ls=MIXED, label=label)
    if scale.is_resolved:
        label = f"$B_{{noise}}$ = {_said(scale)}"
        axes.axvline(float(scale), color=ink(), lw=1.4, ls=SOLID, label=label)
    if scale.low > 0 or math.isfinite(scale.high):
        high = min(scale.high, batches[-1])
        bounds = None if scale.is_resolved else f"$B_{{noise}}$ {scale.bounds_in_words()}"
        axes.axvspan(max(scale.low, 1), high, color=ink(), alpha=0.08, lw=0, label=bounds)


def _said(found: Estimate) -> str:
    return str(found).removesuffix(" (exact)")


def _points(axes: Axes, profile: Results) -> None:
    setting, advice = profile.setting, profile.recommend()
    if setting.lr and setting.batch_size:
        label = f"now: ε = {setting.lr:g}, B = {setting.batch_size:g}"
        axes.plot(setting.batch_size, setting.lr, "o", color=ink(), ms=6, label=label, zorder=7)
    if advice.lr and advice.batch_size:
        named = "to try" if profile.advised is None else "tried"
        label = f"{named}: {short(advice.lr)} at B = {advice.batch_size}"
        axes.plot(
            advice.batch_size, advice.lr, "*", color=NOISE, ms=15, mec="white", label=label,
            zorder=6,
        )  # fmt: skip


def _whose(profile: Results) -> str:
    momentum = f" (momentum {profile.setting.momentum:g})" if profile.setting.momentum else ""
    other, rescales = other_optimizer(profile), profile.setting.rescales
    whose = f" of plain SGD, not {other}" if other else f" of {rescales}" if rescales else ""
    early = ", not settled" if is_unsettled(profile) else ""
    return f"learning rate ε{whose}{momentum}{early}"


def _headline(profile: Results) -> str:
    scale = profile.noise_scale
    if scale.is_resolved:
        return f"$B_{{noise}}$ = {scale}"
    return f"$B_{{noise}}$ {scale.bounds_in_words()}, not resolved"
