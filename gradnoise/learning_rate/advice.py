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
    """What to do: `print` it for one line per reason.

    It follows from numbers measured at one point of training, and is a starting point for a short
    sweep (`gn.sweep`): a run may move to where the loss is flatter and allow a larger learning
    rate. At B_noise a run takes twice the steps of very large batches and twice the samples of very
    small ones (McCandlish et al. 2018, arXiv:1812.06162); the learning rate is the smaller of the
    noise-scale rule (Smith, Elsen and De 2020, arXiv:2006.15081) and the mean-square limit.

    Args:
        batch_size: B near B_noise, in samples; None where B_noise is not resolved.
        lr: largest learning rate worth trying there, in parameter²/loss; None likewise.
        reasons: one sentence each.
        confidence: "good" (interval of B_noise within a factor 2), "rough", or "none".
        samples: about how many to measure to resolve B_noise; None where it is resolved, where more
            samples do not help or the number is not known.

    Example:
        >>> print(Recommendation(128, 0.25, ("Batch size 128.", "Learning rate 0.25."), "good"))
        - Batch size 128.
        - Learning rate 0.25.
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
    """How a model is trained now; None for a setting that is not known.

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
        return f" with momentum {self.momentum:g}" if self.momentum else ""

    @property
    def who(self) -> str:
        """The optimizer that learning rates are for."""
        return (self.rescales or "SGD") + self.with_momentum


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
        reason = f"No batch size or learning rate can be given: {_NEGATIVE}."
        return Recommendation(None, None, (reason,), "none")
    if sharpness.low <= 0:
        why = sharpness.status.remedy or "not positive, so it sets no limit"
        if sharpness.status is Status.NOT_CONVERGED:
            why = f"not converged: {why}"
        reason = f"No learning rate can be given: the sharpness λ is {why}."
        return Recommendation(None, None, (reason, *now), "none")
    if not noise_scale.is_resolved:
        samples = samples_needed(landscape)
        bounds = _bounds(landscape, current, samples)
        return Recommendation(None, None, (*bounds, *now), "none", samples)
    batch = _round_batch(float(noise_scale), landscape.population)
    rule, square = landscape.max_lr(batch), landscape.mean_square_lr(batch)
    lr, source = float(rule), "noise-scale rule: beyond it noise wastes part of each step"
    if square.is_resolved and float(square) < lr:
        lr, source = float(square), "mean-square limit: beyond it this point is unstable"
    scale = short(float(noise_scale))
    meaning = (
        f" (B_noise is {scale}): a run takes about twice the steps of very large batches and twice "
        f"the samples of very small ones."
    )
    if batch < 0.7 * float(noise_scale):
        meaning = f", the whole data set: B_noise is {scale}, so no batch here is too large."
    elif batch > 2 * float(noise_scale):
        meaning = f": B_noise is {scale}, so noise is small even in a single sample's gradient."
    reasons = (
        f"Batch size {batch}{meaning}",
        f"Learning rate for {current.who} at that batch size: up to about {short(lr)} "
        f"({source}). Start a short sweep there; this is not a guarantee. The limit holds at this "
        f"point of training; a run may move to where the loss is flatter and then allow more.",
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
    "the curvature along the gradient or its noise is negative here, so it does not limit the "
    "step; measure later in training"
)

MEANING = {
    NOISE_DOMINATED: (
        "noise-dominated (below B_noise): noise limits the steps, not curvature. Scale the "
        "learning rate with the batch size. Momentum and curvature-aware methods gain little over "
        "a larger learning rate"
    ),
    CURVATURE_DOMINATED: (
        "curvature-dominated (above B_noise): curvature limits the steps, not noise. A larger "
        "batch hardly allows a larger learning rate; a smaller one saves samples. Momentum and "
        "curvature-aware methods help"
    ),
    UNRESOLVED: (
        "inside the interval of the noise scale: it is near B_noise, or too few samples were "
        "measured to say on which side it lies"
    ),
}
RESCALED = (
    "noise-dominated (below B_noise): noise limits the steps, not curvature. Scale the learning "
    "rate with the square root of the batch size, because the second moments follow the noise. "
    "Momentum gains little"
)


def _bounds(landscape: Landscape, current: Setting, samples: int | None) -> tuple[str, ...]:
    noise_scale, rescales = landscape.noise_scale, current.rescales
    grows = "B" if rescales is None else "√B"
    if noise_scale.low > 0:
        advice = (
            f"; up to there, a larger batch B with a learning rate in proportion to {grows} saves "
            f"steps"
        )
    elif math.isfinite(noise_scale.high):
        advice = "; larger batches save few steps"
    else:
        advice = ""
    unit = " samples" if advice else ""
    return (
        f"The noise scale B_noise is {noise_scale.bounds_in_words()}{unit}{advice}.",
        _unresolved(landscape, samples),
        f"At any batch size, {current.who} is unstable at this point beyond the learning rate "
        f"{short(float(landscape.stable_lr))}{'' if current.momentum else ' (2/λ)'}.",
    )


def _unresolved(landscape: Landscape, samples: int | None) -> str:
    """Why the noise scale has no value, and what to do."""
    measured, status = landscape.grad_curvature.samples, landscape.noise_scale.status
    if status is Status.SIGNAL_BELOW_NOISE and measured >= landscape.population:
        return (
            f"All {measured} samples were measured and GᵀHG is not distinguishable from zero: the "
            f"mean gradient vanishes at this point, as at a minimum. Measure earlier in training."
        )
    count = f"; about {short(samples)} samples may be enough" if samples else ""
    return f"Its value is not resolved: {status.remedy}{count}."


def _about_current(landscape: Landscape, current: Setting) -> tuple[str, ...]:
    if current.batch_size is None:
        if not current.lr:
            return ()
        return (
            f"To have the learning rate {current.lr:g} judged, give the batch size as well "
            f"(`batch_size`, --batch-size).",
        )
    batch, noise_scale = current.batch_size, landscape.noise_scale
    side = regime(batch, noise_scale)
    rescaled = current.rescales is not None and side == NOISE_DOMINATED
    reasons = [f"Your batch size {batch:g} is {RESCALED if rescaled else MEANING[side]}."]
    if noise_scale.is_resolved and float(noise_scale) > 0:
        steps, samples = landscape.steps(batch), landscape.samples(batch)
        reasons.append(
            f"At batch size {batch:g} ({short(batch / float(noise_scale))} times B_noise) a run "
            f"takes about {_times(float(steps))} the steps of very large batches and "
            f"{_times(float(samples))} the samples of very small ones."
        )
    if current.lr and landscape.sharpness.low > 0 and noise_scale.is_resolved:
        reasons += _about_rate(landscape, current, batch, current.lr, side)
    return tuple(reasons)


def _about_rate(
    landscape: Landscape, current: Setting, batch: float, lr: float, side: str
) -> list[str]:
    limit = float(landscape.max_lr(batch))
    ratio = lr / limit
    waste = "noise wastes part of each step"
    meaning = (
        f"{waste} here"
        if ratio > 1
        else f"near the rate beyond which {waste}"
        if ratio > 0.5
        else f"below the rate beyond which {waste}"
    )
    reasons = [
        f"Your learning rate {lr:g}{current.with_momentum} is {short(ratio)} times the "
        f"noise-scale rule {short(limit)} at that batch size: {meaning}."
    ]
    speed = landscape.speed(lr, batch)
    if speed > 0:
        share = f"{speed:.0%}" if speed >= 0.01 else "less than 1%"
        reasons.append(
            f"One step at this learning rate is expected to lower the loss by {share} of what the "
            f"best full-batch step would."
        )
    elif not math.isnan(speed):
        reasons.append("One step at this learning rate is expected to raise the loss.")
    square = landscape.mean_square_lr(batch)
    if square.high < lr:
        reasons.append(
            f"It is beyond the mean-square limit {short(float(square))}: this point is unstable. "
            f"The loss may diverge, or jump and settle where it is flatter."
        )
    if side == NOISE_DOMINATED:
        reasons += _scaled(landscape, current, batch, lr)
    return reasons


def _scaled(landscape: Landscape, current: Setting, batch: float, lr: float) -> list[str]:
    """The learning rate in use at the suggested batch size, where that is another one."""
    other = _round_batch(float(landscape.noise_scale), landscape.population)
    if other == batch:
        return []
    rule, name = ("linear", "linear") if current.rescales is None else ("sqrt", "square-root")
    scaled = short(scale_lr(lr, batch, other, rule))
    return [
        f"At batch size {other}, learning rate {scaled} keeps the noise of your steps ({name} "
        f"scaling); do not scale it further for larger batches."
    ]


def _times(ratio: float) -> str:
    """Two digits are enough for a cost."""
    return f"{ratio:.1f} times" if ratio < 10 else f"{ratio:.0f} times"


def _round_batch(noise_scale: float, population: float) -> int:
    """The nearest power of two, the usual choice of a batch size, at most the population."""
    power = 2 ** round(math.log2(max(noise_scale, 1.0)))
    return int(min(power, population))
