"""What to do about the batch size and the learning rate, with reasons."""

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
        batch_size: where compute and time balance; None when that cannot be told.
        lr: largest learning rate worth trying there; None when it cannot be told.
        reasons: one sentence each.
        confidence: "good" (noise scale known within a factor 2), "rough", or "none".
        samples: how many to measure where it cannot be told, about; None where more do not help
            or there is no saying.
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
    """How a model is trained now; None where it is not known.

    Args:
        batch_size: B in samples.
        lr: ε.
        momentum: m, or β₁.
        optimizer: which form the limits have, as for `gn.stable_lr`.
        rescales: name of an optimizer in whose metric the numbers are, if that moves.
    """

    batch_size: float | None = None
    lr: float | None = None
    momentum: float = 0.0
    optimizer: str = "sgd"
    rescales: str | None = None

    @property
    def effective_lr(self) -> float | None:
        """ε/(1 - m), or ε where momentum is an average."""
        return self.lr and self.lr * Momentum.of(self.optimizer, self.momentum).drift


def recommend(landscape: Landscape, current: Setting) -> Recommendation:
    """Batch size B = B_noise and the largest learning rate worth trying there.

    At B_noise a run costs twice the fewest steps and twice the fewest samples (arXiv:1812.06162).
    The learning rate is the lower of the noise-scale rule and the mean-square limit.

    Args:
        landscape: what limits a step, in the form of the optimizer in use.
        current: the setting in use.
    """
    now = _about_current(landscape, current)
    sharpness, noise_scale = landscape.sharpness, landscape.noise_scale
    if sharpness.high < 0 or noise_scale.status is Status.NEGATIVE_CURVATURE:
        reason = f"No batch size or learning rate can be given: {_NO_BOWL}."
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
        f"Learning rate for {_who(current)} at that batch size: up to about {short(lr)} "
        f"({source}). Start a short sweep there; this is not a guarantee. The limit holds at this "
        f"point of training; a run may move to where the loss is flatter and then allow more.",
        *now,
    )
    narrow = noise_scale.high <= 2 * noise_scale.low and sharpness.is_resolved
    return Recommendation(batch, lr, reasons, "good" if narrow else "rough")


def samples_needed(landscape: Landscape) -> int | None:
    """About how many samples would tell GᵀHG from zero, were it what it seems to be.

    Where it is lost in noise its interval shrinks with 1/n - 1/N. None where the whole population
    is measured, where it is resolved, or where its estimate is not positive.
    """
    part, population = landscape.grad_curvature, landscape.population
    if part.status is not Status.SIGNAL_BELOW_NOISE and part.low > 0:
        part = landscape.grad_sq_norm
    n, value = part.samples, part.value
    factor, reach = 1 / n - 1 / population, part.value - part.low
    if not (factor > 0 and value > 0 and value < reach < math.inf):
        return None
    return math.ceil(1 / (1 / population + factor * value / reach))


_NO_BOWL = (
    "the loss curves downwards along its gradient or its noise here, so curvature does not limit "
    "the step; measure later in training"
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
        "inside the noise scale's interval: it is near B_noise, or too few samples were measured "
        "to say on which side it lies"
    ),
}
RESCALED = (
    "noise-dominated (below B_noise): noise limits the steps, not curvature. Scale the learning "
    "rate with the square root of the batch size, because the second moments follow the noise. "
    "Momentum gains little"
)


def _who(current: Setting) -> str:
    """The optimizer that learning rates are for."""
    momentum = f" with momentum {current.momentum:g}" if current.momentum else ""
    return (current.rescales or "SGD") + momentum


def _bounds(landscape: Landscape, current: Setting, samples: int | None) -> tuple[str, ...]:
    noise_scale, rescales = landscape.noise_scale, current.rescales
    grows = "in proportion" if rescales is None else "that grows with its square root"
    if noise_scale.low > 0:
        advice = f"; up to there, a larger batch with a learning rate {grows} saves steps"
    elif math.isfinite(noise_scale.high):
        advice = "; larger batches save few steps"
    else:
        advice = ""
    unit = " samples" if advice else ""
    return (
        f"The noise scale B_noise is {noise_scale.bounds_in_words()}{unit}{advice}.",
        _unresolved(landscape, samples),
        f"At any batch size, {_who(current)} is unstable at this point beyond the learning rate "
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
            f"takes about {float(steps):.2g} times the steps of very large batches and "
            f"{float(samples):.2g} times the samples of very small ones."
        )
    if current.lr and landscape.sharpness.low > 0 and noise_scale.is_resolved:
        reasons += _about_rate(landscape, current, batch, current.lr, side)
    return tuple(reasons)


def _about_rate(
    landscape: Landscape, current: Setting, batch: float, lr: float, side: str
) -> list[str]:
    limit = float(landscape.max_lr(batch))
    share = lr / limit
    waste = "noise wastes part of each step"
    meaning = (
        f"{waste} here"
        if share > 1
        else f"near the rate beyond which {waste}"
        if share > 0.5
        else f"below the rate beyond which {waste}"
    )
    momentum = f" with momentum {current.momentum:g}" if current.momentum else ""
    reasons = [
        f"Your learning rate {lr:g}{momentum} is {short(share)} times the noise-scale rule "
        f"{short(limit)} at that batch size: {meaning}."
    ]
    speed = landscape.speed(lr, batch)
    if speed > 0:
        reasons.append(
            f"One step at this learning rate is expected to lower the loss by {speed:.0%} of what "
            f"the best full-batch step would."
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


def _round_batch(noise_scale: float, population: float) -> int:
    """The nearest power of two, as batch sizes are chosen, within the population."""
    power = 2 ** round(math.log2(max(noise_scale, 1.0)))
    return int(min(power, population))
