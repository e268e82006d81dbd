"""The sentences of a recommendation."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..statistics.estimate import Estimate, Status, short
from .formulas import CURVATURE_DOMINATED, NOISE_DOMINATED, UNRESOLVED, regime
from .landscape import Landscape
from .setting import Setting
from .suggestion import MARGIN, Suggestion, lowest_limit, round_batch

APART = 2.0  # noise scales that differ by more than this factor are said to disagree

WHEN = (
    "This is one snapshot. Its intervals cover samples and random directions, not the phase of "
    "training; along a run the noise scales change severalfold. Measure at several points of it "
    "and pool them (`gn.pool`), or let short training decide (`gn.advise`, `gn.branch`, "
    "`gn.sweep`)."
)
NEGATIVE = (
    "No batch size or learning rate can be given: the curvature along the gradient or its noise is "
    "negative here, so it does not limit the step; measure later in training."
)
NO_CURVATURE = "No learning rate can be given: curvature was not measured (the notes say why)."
MEANING = {
    NOISE_DOMINATED: (
        "noise-dominated: noise limits the steps, not curvature. A larger batch saves "
        "steps where the learning rate can grow with it; momentum gains little"
    ),
    CURVATURE_DOMINATED: (
        "curvature-dominated: curvature limits the steps, not noise. A larger batch saves few "
        "steps; a smaller one saves samples. Momentum helps"
    ),
    UNRESOLVED: (
        "between the noise scales or inside their intervals: which of noise and curvature limits "
        "the steps cannot be told"
    ),
}


def critical(scales: Mapping[str, Estimate], population: float, low: float, high: float) -> str:
    """The critical batch size, a range that holds all noise scales.

    Args:
        scales: the noise scales by name, in samples.
        population: N in samples.
        low, high: the ends of the range, in samples.
    """
    said = ", ".join(f"{name} {_in_words(scale)}" for name, scale in scales.items())
    first = round_batch(low, population)
    last = round_batch(high, population) if math.isfinite(high) else math.inf
    if first < 0.7 * low:
        return (
            f"The critical batch size is larger than the whole data set ({said}): no batch is too "
            f"large."
        )
    if high < 0.5:
        return f"Critical batch size 1 ({said}): noise is small even in a single sample's gradient."
    sizes = f"{first}" if first == last else f"{first} to {last}"
    if math.isinf(last):
        sizes = f"{first} or more"
    factor = _apart(*scales.values()) if len(scales) == 2 else 1.0
    doubt = f" The two differ by a factor {short(factor)}, so this is uncertain."
    return (
        f"Critical batch size: about {sizes} ({said}). There a run takes about twice the steps of "
        f"very large batches and twice the samples of very small ones."
        f"{doubt if factor > APART else ''}"
    )


def to_try(landscape: Landscape, current: Setting, found: Suggestion) -> str:
    """The batch size and the learning rate to try."""
    batch, used = found.batch_size, current.batch_size
    limit = f"the limit {short(lowest_limit(landscape, batch))} at this point"
    if not (used and current.lr):
        why = f"at most half of {_in_the_way(landscape, batch, limit)}"
        return (
            f"To try first ({current.who}): batch size {batch}, learning rate "
            f"{short(found.lr or 0.0)} (noise-scale rule, {why})."
        )
    if batch == used and found.limited:
        hindrance = _in_the_way(landscape, batch, limit)
        return (
            f"Keep batch size {batch} and learning rate {current.lr:g} while the loss falls: "
            f"a larger batch needs a larger rate, and {hindrance} leaves no room for one."
        )
    if batch == used:
        return f"Keep batch size {batch}: it is near the critical one."
    lr = short(found.lr or 0.0)
    pair = f"To try next ({current.who}): batch size {batch}, learning rate {lr}"
    if batch < used:
        return f"{pair}. It saves samples."
    return (
        f"{pair}. {_SCALING[current.scaling]} scaling keeps the noise of your steps, with "
        f"{batch / used:g} times fewer of them; the rate is below half of {limit}."
    )


def _in_the_way(landscape: Landscape, batch_size: float, limit: str) -> str:
    """What forbids a larger rate: the limit, or the noise where this is more than half of it."""
    noise = float(landscape.doubling_lr(batch_size))
    if not noise < MARGIN * lowest_limit(landscape, batch_size):
        return limit
    return f"the rate {short(noise)} at which the noise of the steps doubles the loss"


_SCALING = {"linear": "Linear", "sqrt": "Square-root"}


def about_batch(landscape: Landscape, current: Setting, simple: Estimate | None) -> tuple[str, ...]:
    """Where the batch size in use stands, and what it costs."""
    if current.batch_size is None:
        if not current.lr:
            return ()
        return (
            f"To have the learning rate {current.lr:g} judged, give the batch size as well "
            f"(`batch_size`, --batch-size).",
        )
    batch, scale = current.batch_size, landscape.noise_scale
    sides = {regime(batch, scale)}
    if simple is not None and simple.is_resolved:
        sides.add(regime(batch, simple))
    side = sides.pop() if len(sides) == 1 else UNRESOLVED
    cost = ""
    if scale.is_resolved and float(scale) > 0 and not sides:
        cost = (
            f" A run takes about {_times(float(landscape.steps(batch)))} the steps of very large "
            f"batches and {_times(float(landscape.samples(batch)))} the samples of very small ones."
        )
    return (f"Your batch size {batch:g} is {MEANING[side]}.{cost}",)


def about_rate(landscape: Landscape, current: Setting) -> tuple[str, ...]:
    """Where the learning rate in use stands."""
    lr, batch = current.lr, current.batch_size
    if not (lr and batch):
        return ()
    limit, rule = lowest_limit(landscape, batch), landscape.max_lr(batch)
    said = (
        f"Your learning rate {lr:g}{current.with_momentum} is {short(lr / limit)} times the limit "
        f"{short(limit)} at this point"
    )
    if rule.is_resolved and float(rule) > 0:
        said += (
            f", and {short(lr / float(rule))} times the noise-scale rule {short(float(rule))}, "
            f"beyond which a step gains less (good runs often stand there)"
        )
    if not landscape.mean_square_lr(batch).low > 0:
        said += "; this limit is an upper bound: directions that were not measured may lower it"
    if lr > limit:
        meaning = (
            "Beyond the limit training does not stay in this bowl: the loss jumps, and often "
            "settles where it is flatter. Lower the rate only if the loss keeps rising"
        )
    elif lr > MARGIN * limit:
        meaning = "Runs that train best are often as near to it: keep the rate while the loss falls"
    else:
        meaning = "A larger one may train faster"
    return (f"{said}. {meaning}.",)


def bounds(landscape: Landscape, current: Setting, samples: int | None) -> tuple[str, ...]:
    """What is known where no noise scale has a value."""
    scale = landscape.noise_scale
    if scale.low > 0:
        grows = "B" if current.rescales is None else "√B"
        advice = (
            f"; up to there, a larger batch B with a learning rate in proportion to {grows} saves "
            f"steps"
        )
    else:
        advice = "; larger batches save few steps" if math.isfinite(scale.high) else ""
    unit = " samples" if advice else ""
    found = [
        f"The noise scale B_noise is {scale.bounds_in_words()}{unit}{advice}.",
        _unresolved(landscape, samples),
    ]
    if not (current.no_rate or (current.lr and current.batch_size)):
        found.append(
            f"At any batch size, {current.who} is unstable at this point beyond the learning rate "
            f"{short(float(landscape.stable_lr))}{'' if current.momentum else ' (2/λ)'}."
        )
    return tuple(found)


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


def _apart(first: Estimate, second: Estimate) -> float:
    """The factor between two noise scales, or between the bounds of what is not resolved."""
    low, high = zip(
        *((float(e),) * 2 if e.is_resolved else (e.low, e.high) for e in (first, second)),
        strict=True,
    )
    return max(_ratio(low[0], high[1]), _ratio(low[1], high[0]))


def _ratio(number: float, other: float) -> float:
    return number / other if other > 0 else math.inf if number > 0 else 1.0


def _in_words(scale: Estimate) -> str:
    return short(float(scale)) if scale.is_resolved else scale.bounds_in_words()


def _times(ratio: float) -> str:
    """Two digits are enough for a cost."""
    return f"{ratio:.1f} times" if ratio < 10 else f"{ratio:.0f} times"
