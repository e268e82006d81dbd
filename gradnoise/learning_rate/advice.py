"""Recommended batch size and learning rate, with reasons."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..statistics.estimate import Status, short
from .formulas import CURVATURE_DOMINATED, NOISE_DOMINATED, UNRESOLVED, regime, scale_lr
from .landscape import Landscape
from .update_rule import Momentum


@dataclass(frozen=True)
class Recommendation:
    """What to do.

    Args:
        batch_size: B near B_noise, in samples; None where B_noise is not resolved.
        lr: largest learning rate worth trying there, in parameter²/loss; None likewise.
        reasons: one sentence each.
        confidence: "good" (interval of B_noise within a factor 2), "rough", or "none".
        samples: about how many to measure to resolve B_noise; None where it is resolved, where more
            samples do not help or the number is not known.
    """

    batch_size: int | None
    lr: float | None
    reasons: tuple[str, ...]
    confidence: str
    samples: int | None = None

    def __str__(self) -> str:
        return "\n".join(f"- {reason}" for reason in self.reasons)


@dataclass(frozen=True)
class Setting:
    """How a model is trained now; None for what is not known.

    Args:
        batch_size: B in samples.
        lr: ε in parameter²/loss.
        momentum: m, or β₁.
        optimizer: whose formulas the limits follow, as for `gn.stable_lr`.
        rescales: name of the optimizer in whose metric the numbers are, if the metric changes
            during training; else None.
    """

    batch_size: float | None = None
    lr: float | None = None
    momentum: float = 0.0
    optimizer: str = "sgd"
    rescales: str | None = None

    @property
    def effective_lr(self) -> float | None:
        """ε/(1 - m), or ε where the velocity is an average of gradients (Adam)."""
        return self.lr and self.lr * Momentum.of(self.optimizer, self.momentum).drift

    @property
    def with_momentum(self) -> str:
        """The words after the optimizer or the learning rate: empty without momentum."""
        return f" with momentum {short(self.momentum)}" if self.momentum else ""


def recommend(landscape: Landscape, current: Setting) -> Recommendation:
    """Batch size B = B_noise and the largest learning rate worth trying there.

    At B = B_noise a run takes 1 + B_noise/B = 2 times the minimum number of steps and
    1 + B/B_noise = 2 times the minimum number of samples (arXiv:1812.06162). The learning rate is
    the smaller one of the noise-scale rule and the mean-square limit.

    Args:
        landscape: what limits a step, with the formulas of the optimizer in use.
        current: the setting in use.
    """
    now = _about_current(landscape, current)
    sharpness, noise_scale = landscape.sharpness, landscape.noise_scale
    if sharpness.high < 0 or noise_scale.status is Status.NEGATIVE_CURVATURE:
        reason = f"No batch size or learning rate can be recommended: {_NEGATIVE}."
        return Recommendation(None, None, (reason,), "none")
    if sharpness.low <= 0:
        why = sharpness.status.remedy or "not positive, so that it sets no limit"
        if sharpness.status is Status.NOT_CONVERGED:
            why = f"not converged: {why}"
        reason = f"No learning rate can be recommended: the sharpness is {why}."
        return Recommendation(None, None, (reason, *now), "none")
    if not noise_scale.is_resolved:
        samples = samples_needed(landscape)
        bounds = _bounds(landscape, current, samples)
        return Recommendation(None, None, (*bounds, *now), "none", samples)
    batch = _round_batch(float(noise_scale), landscape.population)
    rule, square = landscape.max_lr(batch), landscape.mean_square_lr(batch)
    lr = float(rule)
    source = "the noise-scale rule"
    if square.is_resolved and float(square) < lr:
        lr, source = float(square), "mean-square stability"
    meaning = (
        ": a run takes about twice the minimum number of steps and twice the minimum number of "
        "samples there."
    )
    if batch < 0.7 * float(noise_scale):
        scale = short(float(noise_scale))
        meaning = f", the whole data: B_noise is {scale}, larger than all of it."
    reasons = (
        f"Batch size {batch}{meaning}",
        f"Learning rate up to about {short(lr)} at that batch size{current.with_momentum} "
        f"({source}): a starting point for a short sweep, not a guarantee.",
        *now,
    )
    narrow = noise_scale.high <= 2 * noise_scale.low and sharpness.is_resolved
    return Recommendation(batch, lr, reasons, "good" if narrow else "rough")


def samples_needed(landscape: Landscape) -> int | None:
    """About how many samples would resolve GᵀHG, if its estimate is right.

    The half-width of the interval is proportional to 1/n - 1/N while the estimate is below its
    noise; the number is where it equals the estimate. None where the whole population is measured,
    where GᵀHG is resolved, or where its estimate is not positive.
    """
    part, population = landscape.grad_curvature, landscape.population
    if part.status is not Status.SIGNAL_BELOW_NOISE and part.low > 0:
        part = landscape.grad_sq_norm
    n, value = part.samples, part.value
    factor, half_width = 1 / n - 1 / population, part.value - part.low
    if not (factor > 0 and value > 0 and value < half_width < math.inf):
        return None
    return math.ceil(1 / (1 / population + factor * value / half_width))


_NEGATIVE = (
    "the curvature along the gradient or its noise is negative here, so the quadratic model does "
    "not limit the step; measure later in training"
)

MEANING = {
    NOISE_DOMINATED: (
        "noise-dominated, below the noise scale: scale the learning rate with the batch size; "
        "momentum and curvature-aware methods bring nothing that a larger learning rate does not"
    ),
    CURVATURE_DOMINATED: (
        "curvature-dominated, above the noise scale: a larger batch hardly allows a larger "
        "learning rate, a smaller one saves samples, momentum and curvature-aware methods help"
    ),
    UNRESOLVED: (
        "inside the interval of the noise scale: close to it, or it is not measured well enough"
    ),
}
RESCALED = (
    "noise-dominated, below the noise scale: scale the learning rate with the square root of the "
    "batch size, as the second moments grow with the noise; momentum brings little"
)


def _bounds(landscape: Landscape, current: Setting, samples: int | None) -> tuple[str, ...]:
    noise_scale, rescales = landscape.noise_scale, current.rescales
    grows = "B" if rescales is None else "√B"
    if noise_scale.low > 0:
        advice = (
            f"; up to there, a larger batch B with a learning rate proportional to {grows} needs "
            f"about as many samples"
        )
    elif math.isfinite(noise_scale.high):
        advice = "; larger batches hardly reduce the number of steps"
    else:
        advice = ""
    unit = " samples" if advice else ""
    count = f"; about {short(samples)} samples may resolve it" if samples else ""
    stable = short(float(landscape.stable_lr)) + ("" if current.momentum else " (2/λ)")
    return (
        f"The noise scale is {noise_scale.bounds_in_words()}{unit}{advice}.",
        f"Its value is not resolved: {noise_scale.status.remedy}{count}.",
        f"At every batch size, {rescales or 'SGD'}{current.with_momentum} is unstable at this "
        f"point beyond the learning rate {stable}.",
    )


def _about_current(landscape: Landscape, current: Setting) -> tuple[str, ...]:
    if current.batch_size is None:
        return ()
    batch, noise_scale = current.batch_size, landscape.noise_scale
    side = regime(batch, noise_scale)
    rescaled = current.rescales is not None and side == NOISE_DOMINATED
    reasons = [f"Your batch size {batch:g} is {RESCALED if rescaled else MEANING[side]}."]
    if noise_scale.is_resolved and float(noise_scale) > 0:
        steps, samples = landscape.steps(batch), landscape.samples(batch)
        reasons.append(
            f"At {short(batch / float(noise_scale))} times the noise scale a run takes about "
            f"{short(float(steps))} times the minimum number of steps and "
            f"{short(float(samples))} times the minimum number of samples."
        )
    if current.lr and landscape.sharpness.low > 0 and noise_scale.is_resolved:
        reasons += _about_rate(landscape, current, batch, current.lr, side)
    return tuple(reasons)


def _about_rate(
    landscape: Landscape, current: Setting, batch: float, lr: float, side: str
) -> list[str]:
    limit = float(landscape.max_lr(batch))
    ratio = lr / limit
    meaning = (
        "gradient noise limits the loss; lower it or increase the batch size to go further down"
        if ratio > 1
        else "close to the largest useful one"
        if ratio > 0.5
        else "it can be raised"
    )
    reasons = [
        f"Your learning rate {lr:g}{current.with_momentum} is {short(ratio)} times the "
        f"noise-scale rule {short(limit)} at that batch size: {meaning}."
    ]
    speed = landscape.speed(lr, batch)
    if not math.isnan(speed):
        gain = (
            f"lowers the expected loss by {speed:.0%} of what the best full-batch step does"
            if speed > 0
            else "raises the expected loss"
        )
        reasons.append(f"One step at this learning rate {gain}.")
    square = landscape.mean_square_lr(batch)
    if square.high < lr:
        reasons.append(
            f"It is beyond the mean-square limit {short(float(square))}: SGD is unstable at this "
            f"point and will move to a flatter one, or diverge."
        )
    if side == NOISE_DOMINATED:
        other = _round_batch(float(landscape.noise_scale), landscape.population)
        rule, name = ("linear", "Linear") if current.rescales is None else ("sqrt", "Square root")
        scaled = short(scale_lr(lr, batch, other, rule))
        reasons.append(
            f"{name} scaling gives {scaled} at batch size {other}; keep that for larger batches."
        )
    return reasons


def _round_batch(noise_scale: float, population: float) -> int:
    """The nearest power of two, the usual choice of a batch size, at most the population."""
    power = 2 ** round(math.log2(max(noise_scale, 1.0)))
    return int(min(power, population))
