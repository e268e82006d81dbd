"""Recommended batch size and learning rate, with reasons."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Protocol

from ..statistics.estimate import Estimate, Status
from .landscape import Landscape
from .reasons import NEGATIVE, NO_CURVATURE, WHEN, about_batch, about_rate, bounds, critical, to_try
from .setting import Setting
from .suggestion import round_batch, suggest

SNAPSHOT, NONE = "snapshot: rough", "none"


@dataclass(frozen=True)
class Recommendation:
    """What to do: `print` it for one line per reason.

    From one profile it is a starting point for trials (`gn.advise`, `gn.branch`, `gn.sweep`), not a
    result: the noise scales of one point of training change severalfold along a run, and a run may
    move to where the loss is flatter and allow a larger learning rate. At the critical batch size a
    run takes twice the steps of very large batches and twice the samples of very small ones
    (McCandlish et al. 2018, arXiv:1812.06162). A learning rate for another batch size than that in
    use is at most half of the lower limit of stability there (docs/theory/stability.md).

    Args:
        batch_size: B to try next, in samples; None where no noise scale is resolved.
        lr: learning rate to try there, in parameter²/loss; None where none can be told.
        reasons: what to do, then why, one sentence each.
        confidence: "snapshot: rough" from one profile, or "none"; "good" or "rough" where short
            training has tried it (`Profile.with_advice`).
        samples: about how many to measure to resolve B_noise; None where it is resolved, where more
            samples do not help or the number is not known.
        critical: the critical batch size in samples, from the lowest to the highest end of the
            intervals of B_simple and B_noise; or None.
        caveats: what this does not say, one sentence each.

    Example:
        >>> print(Recommendation(128, 0.25, ("Batch size 128.", "Learning rate 0.25."), "none"))
        - Batch size 128.
        - Learning rate 0.25.
    """

    batch_size: int | None
    lr: float | None
    reasons: tuple[str, ...]
    confidence: str
    samples: int | None = None
    critical: tuple[float, float] | None = None
    caveats: tuple[str, ...] = ()

    @classmethod
    def from_dict(cls, contents: dict[str, Any]) -> Recommendation:
        """What `dataclasses.asdict` gave, with lists for tuples."""
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in contents.items()
        }
        return cls(**fields)

    def __str__(self) -> str:
        return "\n".join(f"- {sentence}" for sentence in (*self.reasons, *self.caveats))


class Tried(Protocol):
    """A batch size and a learning rate that short training has tried, such as `gn.Advice`."""

    @property
    def batch_size(self) -> int | None: ...
    @property
    def lr(self) -> float | None: ...
    @property
    def reasons(self) -> tuple[str, ...]: ...
    @property
    def confidence(self) -> str: ...


def recommend(
    landscape: Landscape, current: Setting, simple: Estimate | None = None
) -> Recommendation:
    """A batch size near the critical one, and a learning rate within the limits there.

    B_simple leads: of 54 profiles of five problems it named the trained critical batch size within
    a factor of two in 35, and B_noise in 16 (docs/decisions.md).

    Args:
        landscape: what limits a step, with the formulas of the optimizer in use.
        current: the setting in use.
        simple: B_simple; None to go by B_noise alone.
    """
    first = (current.no_rate,) if current.no_rate else ()
    now = about_batch(landscape, current, simple)
    if landscape.sharpness.high < 0 or landscape.noise_scale.status is Status.NEGATIVE_CURVATURE:
        return Recommendation(None, None, (*first, NEGATIVE), NONE)
    if landscape.sharpness.low <= 0 and not current.no_rate:
        return Recommendation(None, None, (_without_limit(landscape), *now), NONE)
    if not current.no_rate:
        now += about_rate(landscape, current)
    both = {"B_simple": simple, "B_noise": landscape.noise_scale}
    scales = {name: scale for name, scale in both.items() if scale is not None}
    known = [float(scale) for scale in scales.values() if scale.is_resolved]
    if not known:
        samples = samples_needed(landscape)
        reasons = (*first, *bounds(landscape, current, samples), *now)
        return Recommendation(None, None, reasons, NONE, samples, caveats=(WHEN,))
    low, high = _range(scales.values())
    said = critical(scales, landscape.population, low, high)
    if current.no_rate:
        batch, lr = round_batch(known[0], landscape.population), None
        reasons = (*first, said, *now)
    else:
        found = suggest(landscape, current, known[0], max(known))
        batch, lr = found.batch_size, found.lr
        reasons = (to_try(landscape, current, found), said, *now)
    return Recommendation(batch, lr, reasons, SNAPSHOT, critical=(low, high), caveats=(WHEN,))


def without_curvature(simple: Estimate | None, population: float) -> Recommendation:
    """A batch size from B_simple alone, where curvature was not measured.

    Args:
        simple: B_simple in samples, if it was measured.
        population: N in samples.
    """
    if simple is None or not simple.is_resolved:
        known = () if simple is None else (f"B_simple is {simple}: {simple.status.remedy}.",)
        return Recommendation(None, None, (NO_CURVATURE, *known), NONE, caveats=(WHEN,))
    low, high = _range([simple])
    said = critical({"B_simple": simple}, population, low, high)
    batch = round_batch(float(simple), population)
    reasons = (said, NO_CURVATURE)
    return Recommendation(batch, None, reasons, SNAPSHOT, critical=(low, high), caveats=(WHEN,))


def _range(scales: Collection[Estimate]) -> tuple[float, float]:
    """From the lowest to the highest value or end of an interval that is known.

    Open above where a noise scale is only known to be at least so large.
    """
    known = [float(scale) for scale in scales if scale.is_resolved]
    ends = [end for scale in scales for end in (scale.low, scale.high) if 0 < end < math.inf]
    bounds = [scale for scale in scales if not scale.is_resolved and scale.low > 0]
    is_open = any(scale.high == math.inf for scale in bounds)
    return min(known + ends), math.inf if is_open else max(known + ends)


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


def _without_limit(landscape: Landscape) -> str:
    status = landscape.sharpness.status
    why = status.remedy or "not positive, so it sets no limit"
    if status is Status.NOT_CONVERGED:
        why = f"not converged: {why}"
    return f"No learning rate can be given: the sharpness λ is {why}."
