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
        reason = f"No batch size or learning rate can be told: {_NO_BOWL}."
        return Recommendation(None, None, (reason,), "none")
    if sharpness.low <= 0:
        why = sharpness.status.remedy or "not positive, so that it sets no limit"
        if sharpness.status is Status.NOT_CONVERGED:
            why = f"not converged: {why}"
        reason = f"No learning rate can be told: the sharpness is {why}."
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
    momentum = f" with momentum {short(current.momentum)}" if current.momentum else ""
    meaning = ": there a run takes about twice the fewest steps and twice the fewest samples."
    if batch < 0.7 * float(noise_scale):
        scale = short(float(noise_scale))
        meaning = f", the whole data: B_noise is {scale}, so that no batch of it is too large."
    reasons = (
        f"Batch size {batch}{meaning}",
        f"Learning rate up to about {short(lr)} at that batch size{momentum} ({source}): a "
        f"starting point for a short sweep, not a guarantee.",
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
    "the loss curves downwards along its gradient or noise here, so no quadratic bowl limits the "
    "step; measure later in training"
)

MEANING = {
    NOISE_DOMINATED: (
        "noise-dominated, below the noise scale: scale the learning rate with the batch size; "
        "momentum and curvature-aware methods add nothing that a larger learning rate would not"
    ),
    CURVATURE_DOMINATED: (
        "curvature-dominated, above the noise scale: a larger batch hardly allows a larger "
        "learning rate, a smaller one saves samples, momentum and curvature-aware methods help"
    ),
    UNRESOLVED: "inside the noise scale's interval: near the knee, or not measured well enough",
}
RESCALED = (
    "noise-dominated, below the noise scale: scale the learning rate with the square root of the "
    "batch size, as the second moments follow the noise; momentum adds little"
)


def _bounds(landscape: Landscape, current: Setting, samples: int | None) -> tuple[str, ...]:
    noise_scale, rescales = landscape.noise_scale, current.rescales
    grows = "in proportion" if rescales is None else "that grows with its square root"
    if noise_scale.low > 0:
        advice = f"; up to there, a larger batch with a learning rate {grows} loses nothing"
    elif math.isfinite(noise_scale.high):
        advice = "; batches beyond that are wasted"
    else:
        advice = ""
    unit = " samples" if advice else ""
    count = f"; about {short(samples)} samples may tell" if samples else ""
    stable, kind = short(float(landscape.stable_lr)), current.momentum
    who = f"{rescales or 'SGD'} with momentum {short(kind)}" if kind else rescales or "plain SGD"
    return (
        f"The noise scale is {noise_scale.bounds_in_words()}{unit}{advice}.",
        f"Its value is not resolved: {noise_scale.status.remedy}{count}.",
        f"Whatever the batch size, {who} is unstable beyond the learning rate {stable}"
        f"{'' if kind else ' (2/λ)'}.",
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
            f"{short(float(steps))} times the fewest steps and {short(float(samples))} times the "
            f"fewest samples."
        )
    if current.lr and landscape.sharpness.low > 0 and noise_scale.is_resolved:
        reasons += _about_rate(landscape, current, batch, current.lr, side)
    return tuple(reasons)


def _about_rate(
    landscape: Landscape, current: Setting, batch: float, lr: float, side: str
) -> list[str]:
    limit = float(landscape.max_lr(batch))
    share = lr / limit
    meaning = (
        "the noise of a step outweighs its gain, so lower it or enlarge the batch when the loss "
        "has to fall further"
        if share > 1
        else "close to what a step can use"
        if share > 0.5
        else "there is room to raise it"
    )
    momentum = f" with momentum {short(current.momentum)}" if current.momentum else ""
    reasons = [
        f"Your learning rate {lr:g}{momentum} is {short(share)} times the noise-scale rule "
        f"{short(limit)} at that batch size: {meaning}."
    ]
    speed = landscape.speed(lr, batch)
    if not math.isnan(speed):
        gain = f"gains {speed:.0%} of what" if speed > 0 else "is expected to lose, where"
        reasons.append(f"A step of it {gain} the best step of a full batch gains.")
    square = landscape.mean_square_lr(batch)
    if square.high < lr:
        reasons.append(
            f"It is beyond the mean-square limit {short(float(square))}: the loss is about to "
            f"diverge, or to move to where it is flatter."
        )
    if side == NOISE_DOMINATED:
        other = _round_batch(float(landscape.noise_scale), landscape.population)
        rule, name = ("linear", "Linear") if current.rescales is None else ("sqrt", "Square root")
        scaled = short(scale_lr(lr, batch, other, rule))
        reasons.append(
            f"{name} scaling carries it to {scaled} at batch size {other}, and no further beyond."
        )
    return reasons


def _round_batch(noise_scale: float, population: float) -> int:
    """The nearest power of two, as batch sizes are chosen, within the population."""
    power = 2 ** round(math.log2(max(noise_scale, 1.0)))
    return int(min(power, population))
