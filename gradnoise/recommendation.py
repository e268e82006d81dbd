"""What to do about the batch size and the learning rate, with reasons."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .estimate import Estimate, Status, short
from .regime import (
    CURVATURE_DOMINATED,
    NOISE_DOMINATED,
    UNRESOLVED,
    effective_lr,
    max_lr,
    mean_square_lr,
    regime,
    stable_lr,
)


@dataclass(frozen=True)
class Recommendation:
    """What to do.

    Args:
        batch_size: where compute and time balance; None when that cannot be told.
        lr: largest learning rate worth trying there; None when it cannot be told.
        reasons: one sentence each.
        confidence: "good" (noise scale known within a factor 2), "rough", or "none".
    """

    batch_size: int | None
    lr: float | None
    reasons: tuple[str, ...]
    confidence: str

    def __str__(self) -> str:
        return "\n".join(f"- {reason}" for reason in self.reasons)


@dataclass(frozen=True)
class Setting:
    """How a model is trained now; None where it is not known.

    Args:
        batch_size: B in samples.
        lr: ε.
        momentum: m, where the effective learning rate is ε/(1 - m).
        rescales: name of an optimizer in whose metric the numbers are, if that moves.
    """

    batch_size: float | None = None
    lr: float | None = None
    momentum: float = 0.0
    rescales: str | None = None


def recommend(
    sharpness: Estimate,
    noise_scale: Estimate,
    curvature_noise_scale: Estimate,
    population: float,
    current: Setting,
) -> Recommendation:
    """Batch size B = B_noise and the largest learning rate worth trying there.

    At B_noise a run costs twice the fewest steps and twice the fewest samples (arXiv:1812.06162).
    The learning rate is the lower of the noise-scale rule and the mean-square limit, times 1 - m.

    Args:
        sharpness, noise_scale, curvature_noise_scale: λ, B_noise and B_curv.
        population: N; a batch is never larger.
        current: the setting in use.
    """
    now = _about_current(sharpness, noise_scale, current)
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
        bounds = _bounds(sharpness, noise_scale, current.rescales)
        return Recommendation(None, None, (*bounds, *now), "none")
    batch = _round_batch(float(noise_scale), population)
    rule = max_lr(float(sharpness), float(noise_scale), batch)
    limit = rule
    if curvature_noise_scale.is_resolved:
        limit = mean_square_lr(
            float(sharpness), float(curvature_noise_scale), batch, max(population, batch)
        )
    lr = min(rule, limit) * (1 - current.momentum)
    momentum = f" with momentum {short(current.momentum)}" if current.momentum else ""
    source = "the noise-scale rule" if rule <= limit else "mean-square stability"
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


_NO_BOWL = (
    "the loss curves downwards along its gradient or noise here, so no quadratic bowl limits the "
    "step; measure later in training"
)

MEANING = {
    NOISE_DOMINATED: (
        "noise-dominated, below the noise scale: scale the learning rate with the batch size; "
        "momentum adds nothing that a larger learning rate would not"
    ),
    CURVATURE_DOMINATED: (
        "curvature-dominated, above the noise scale: a larger batch hardly allows a larger "
        "learning rate, a smaller one saves samples, momentum helps"
    ),
    UNRESOLVED: "inside the noise scale's interval: near the knee, or not measured well enough",
}
RESCALED = (
    "noise-dominated, below the noise scale: scale the learning rate with the square root of the "
    "batch size, as the second moments follow the noise; momentum adds little"
)


def _bounds(sharpness: Estimate, noise_scale: Estimate, rescales: str | None) -> tuple[str, ...]:
    grows = "in proportion" if rescales is None else "that grows with its square root"
    if noise_scale.low > 0:
        advice = f"; up to there, a larger batch with a learning rate {grows} loses nothing"
    elif math.isfinite(noise_scale.high):
        advice = "; batches beyond that are wasted"
    else:
        advice = ""
    unit = " samples" if advice else ""
    who = "plain SGD" if rescales is None else f"{rescales} without momentum"
    return (
        f"The noise scale is {noise_scale.bounds_in_words()}{unit}{advice}.",
        f"Its value is not resolved: {noise_scale.status.remedy}.",
        f"Whatever the batch size, {who} is unstable beyond the learning rate "
        f"{short(stable_lr(float(sharpness)))} (2/λ).",
    )


def _about_current(sharpness: Estimate, noise_scale: Estimate, current: Setting) -> tuple[str, ...]:
    if current.batch_size is None:
        return ()
    side = regime(current.batch_size, noise_scale)
    rescaled = current.rescales is not None and side == NOISE_DOMINATED
    meaning = RESCALED if rescaled else MEANING[side]
    reasons = [f"Your batch size {current.batch_size:g} is {meaning}."]
    if current.lr and sharpness.low > 0 and noise_scale.is_resolved:
        limit = max_lr(float(sharpness), float(noise_scale), current.batch_size)
        used = effective_lr(current.lr, current.momentum)
        name = "effective learning rate ε/(1 - m)" if current.momentum else "learning rate"
        share = used / limit
        meaning = (
            "the noise of a step outweighs its gain, so lower it or enlarge the batch when the "
            "loss has to fall further"
            if share > 1
            else "close to what a step can use"
            if share > 0.5
            else "there is room to raise it"
        )
        reasons.append(
            f"Your {name} {used:g} is {short(share)} times the noise-scale rule {short(limit)} at "
            f"that batch size: {meaning}."
        )
    return tuple(reasons)


def _round_batch(noise_scale: float, population: float) -> int:
    """The nearest power of two, as batch sizes are chosen, within the population."""
    power = 2 ** round(math.log2(max(noise_scale, 1.0)))
    return int(min(power, population))
