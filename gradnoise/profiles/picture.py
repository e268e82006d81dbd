"""The regime map: learning rate against batch size, and where a model stands on it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import NotMeasuredError
from ..learning_rate.formulas import stable_lr
from ..learning_rate.landscape import Landscape
from ..learning_rate.update_rule import Momentum
from ..show.axes import CURVATURE, FAINT, INK, NOISE, canvas
from ..statistics.estimate import short
from .results import Results, is_unsettled, other_optimizer


def draw(profile: Results, path: str | Path | None = None) -> Any:
    """A matplotlib Figure; saved to `path` when given."""
    if "noise_scale" not in profile.estimates:
        raise NotMeasuredError(
            "the regime map needs curvature, which was not measured; `warnings` says why"
        )
    if not float(profile.sharpness) > 0:
        raise NotMeasuredError(
            "the regime map needs positive curvature, and the sharpness is not positive; measure "
            "later in training"
        )
    figure, axes = canvas(height=6.4)
    batches = _batch_grid(profile)
    landscape = profile.landscape(profile.setting.momentum)
    limits = _lr_limits(profile, landscape)
    axes.set(xscale="log", yscale="log", xlim=(batches[0], batches[-1]), ylim=limits)
    axes.set_xscale("log", base=2)
    _isotherms(axes, batches, limits, landscape)
    _limits(axes, profile, landscape, batches, limits)
    _noise_scale(axes, profile, batches)
    _regions(axes, landscape, batches, limits)
    _points(axes, profile)
    _words(axes, profile)
    figure.tight_layout()
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


def _batch_grid(profile: Results) -> np.ndarray:
    scale = profile.noise_scale
    known = [x for x in (float(scale), scale.low, profile.setting.batch_size) if x and x < 2**40]
    top = max([64.0, *(8 * x for x in known if math.isfinite(x))])
    return np.geomspace(1, 2 ** math.ceil(math.log2(top)), 200)


def _lr_limits(profile: Results, landscape: Landscape) -> tuple[float, float]:
    top = 4 * float(landscape.stable_lr)
    rule = landscape.max_lr(1)
    bottom = float(rule) if rule.is_resolved else top / 1e4
    points = [x for x in (profile.setting.lr, bottom, top / 1e2) if x]
    return min(points) / 2, max(top, 2 * (profile.setting.lr or 0))


def _isotherms(
    axes: Any, batches: np.ndarray, limits: tuple[float, float], landscape: Landscape
) -> None:
    drift = Momentum.of(landscape.optimizer, landscape.momentum).drift  # T = ε·drift/B
    formula = "ε/B" if drift == 1 else "ε/((1 - m)B)"
    axes.plot([], [], color=FAINT, lw=0.9, ls=":", label=f"equal temperature T = {formula}")
    first = math.floor(math.log10(limits[0] / batches[-1] * drift))
    last = math.ceil(math.log10(limits[1] / batches[0] * drift))
    for power in range(first, last + 1):
        slope = 10.0**power / drift
        axes.plot(batches, slope * batches, color=FAINT, lw=0.6, ls=":", zorder=1)
        # label where the line enters the picture, at the left edge or at the bottom
        x = batches[0] * 1.15 if slope > limits[0] else limits[0] * 1.3 / slope
        y = slope * x
        if limits[0] * 1.2 < y < limits[1] / 2 and x < batches[-1] / 2:
            text = f"T = $10^{{{power}}}$"
            axes.text(x, y * 1.15, text, color=FAINT, fontsize=7, va="bottom", rotation=0)


def _limits(
    axes: Any,
    profile: Results,
    landscape: Landscape,
    batches: np.ndarray,
    limits: tuple[float, float],
) -> None:
    stable = landscape.stable_lr
    factor = f"{stable_lr(1.0, landscape.optimizer, landscape.momentum):.3g}"
    label = f"{factor}/λ = {short(float(stable))}, full-batch limit{_limiting(profile)}"
    axes.axhline(float(stable), color=CURVATURE, lw=1.4, label=label)
    if stable.low > 0 and math.isfinite(stable.high):
        axes.axhspan(stable.low, stable.high, color=CURVATURE, alpha=0.15, lw=0)
    axes.axhspan(float(stable), limits[1], color=CURVATURE, alpha=0.05, lw=0)
    scale = landscape.noise_scale
    if scale.low > 0 or math.isfinite(scale.high):
        rule = [landscape.max_lr(batch) for batch in batches]
        name = "noise-scale rule"
        if scale.is_resolved:
            axes.plot(batches, [float(r) for r in rule], color=NOISE, lw=2, label=name)
        low = [r.low or limits[0] for r in rule]
        high = [min(r.high, float(stable)) for r in rule]
        band = None if scale.is_resolved else f"{name}: bounds only"
        axes.fill_between(batches, low, high, color=NOISE, alpha=0.2, lw=0, label=band)
    inside = np.geomspace(batches[0], min(batches[-1], profile.population), 60)
    mean_square = [float(landscape.mean_square_lr(batch)) for batch in inside]
    label = "mean-square limit"
    axes.plot(inside, mean_square, color=INK, lw=1.2, ls="--", label=label)


def _limiting(profile: Results) -> str:
    """The layer that limits the learning rate, where there are several and one is determined."""
    names = [layer.name or "(root)" for layer in profile.layers.values() if layer.limits_lr]
    return f" (layer {names[0]})" if names and len(profile.layers) > 1 else ""


def _regions(
    axes: Any, landscape: Landscape, batches: np.ndarray, limits: tuple[float, float]
) -> None:
    """The regions that the limits separate, in words."""
    stable, scale = float(landscape.stable_lr), landscape.noise_scale
    style = {"fontsize": 8, "ha": "center", "va": "center", "style": "italic"}
    above = math.sqrt(stable * limits[1])
    axes.text(batches[-1] ** 0.25, above, "unstable at this point", color=CURVATURE, **style)
    if scale.is_resolved and float(scale) > 4:
        left = math.sqrt(float(scale))
        rule = float(landscape.max_lr(left))
        between = math.sqrt(rule * float(landscape.mean_square_lr(left)))
        axes.text(left, between, "a step gains less", color=NOISE, **style)


def _noise_scale(axes: Any, profile: Results, batches: np.ndarray) -> None:
    scale, simple = profile.noise_scale, profile.simple_noise_scale
    if simple.is_resolved and batches[0] < float(simple) < batches[-1]:
        label = f"$B_{{simple}}$ = {short(float(simple))}"
        axes.axvline(float(simple), color=INK, lw=1.0, ls="-.", label=label)
    if scale.is_resolved:
        label = f"$B_{{noise}}$ = {short(float(scale))}"
        axes.axvline(float(scale), color=INK, lw=1.4, label=label)
    if scale.low > 0 or math.isfinite(scale.high):
        high = min(scale.high, batches[-1])
        bounds = None if scale.is_resolved else f"$B_{{noise}}$ {scale.bounds_in_words()}"
        axes.axvspan(max(scale.low, 1), high, color=INK, alpha=0.08, lw=0, label=bounds)


def _points(axes: Any, profile: Results) -> None:
    setting, advice = profile.setting, profile.recommend()
    if setting.lr and setting.batch_size:
        label = f"now: ε = {setting.lr:g}, B = {setting.batch_size:g}"
        axes.plot(setting.batch_size, setting.lr, "o", color=INK, ms=8, label=label, zorder=5)
    if advice.lr and advice.batch_size:
        label = f"to try: {short(advice.lr)} at B = {advice.batch_size}"
        axes.plot(
            advice.batch_size,
            advice.lr,
            "*",
            color=NOISE,
            ms=15,
            mec="white",
            label=label,
            zorder=6,
        )


def _words(axes: Any, profile: Results) -> None:
    axes.set_xlabel("batch size B (samples)")
    momentum = f" (momentum {profile.setting.momentum:g})" if profile.setting.momentum else ""
    other, rescales = other_optimizer(profile), profile.setting.rescales
    whose = f" of plain SGD, not {other}" if other else f" of {rescales}" if rescales else ""
    early = ", not settled" if is_unsettled(profile) else ""
    axes.set_ylabel(f"learning rate ε{whose}{momentum}{early}")
    axes.set_title(
        f"{profile.model} on {profile.samples} samples: {_headline(profile)}",
        fontsize=10,
        color=INK,
    )
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.11), ncols=2, fontsize=8, frameon=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _headline(profile: Results) -> str:
    scale = profile.noise_scale
    if scale.is_resolved:
        return "noise-dominated left of $B_{noise}$, curvature-dominated right of it"
    return f"$B_{{noise}}$ {scale.bounds_in_words()}, not resolved"
