"""The critical batch size of a run from the losses, noise and sharpness of its measured steps."""

from __future__ import annotations

import math
from typing import Any

from ..statistics.estimate import Estimate, Status

LEAST = 4.0  # n* = (Σt)²/Σt² from which a slope is told: six losses at t = 1, 51, ... have 4.1
ERRORS = 2.0  # standard errors of the slope that the interval allows for
# how far training may be from the two predictions together, and from this one alone: docs/advice.md
BOTH, ALONE = 2.0, 5.0
FLAT = Status.NO_DESCENT  # the loss did not fall


class Slope:
    """D = -dL/d ln t by weighted least squares, where a measured step t weighs t^p; sums alone.

    Args:
        power: p.
    """

    def __init__(self, power: int) -> None:
        self.power = power
        # of w, wx, wx², wy, wxy, wy², w², w²x, w²x² with w = t^p, x = ln t, y = L
        self.sums = [0.0] * 9

    def add(self, step: float, loss: float) -> None:
        """Take a loss."""
        w, x, y = step**self.power, math.log(step), loss
        parts = (1.0, x, x * x, y, x * y, y * y, w, w * x, w * x * x)
        self.sums = [s + w * part for s, part in zip(self.sums, parts, strict=True)]

    @property
    def count(self) -> float:
        """n* = (Σw)²/Σw²."""
        return self.sums[0] ** 2 / self.sums[6] if self.sums[6] else 0.0

    def value(self) -> tuple[float, float]:
        """D and its standard error, for independent residuals; nan before there are enough."""
        w, wx, wxx, wy, wxy, wyy, ww, wwx, wwxx = self.sums
        if self.count < LEAST:
            return math.nan, math.nan
        mean = wx / w
        width, both, height = wxx - wx * mean, wxy - wy * mean, wyy - wy * wy / w
        left = max(height - both * both / width, 0.0) / w * self.count / (self.count - 2)
        spread = max(wwxx - 2 * mean * wwx + mean * mean * ww, 0.0)
        return -both / width, math.sqrt(left * spread) / width


class CriticalBatch:
    """B_crit = ε_max·trΣ/D along a run, where every measured step t weighs t.

    A rate ε at batch size B holds the loss about ε·trΣ/B too high, so that noise allows about
    ε = B·D/trΣ in a run whose loss falls by D = -dL/d ln t; curvature allows
    ε_max = 2/((1 - m)λ). Both are equal at B_crit. D is the slope of the weighted least-squares
    line through the losses against ln t; trΣ and (1 - m)λ are weighted means. With the weights t
    half of the weight is on the last 30 % of the steps, wherever the run is. Only sums are kept.

    With an adaptive optimizer λ and trΣ are in its metric P: tr(P⁻¹Σ) is trΣ times a factor.

    Source: as of `gn.Pool`; docs/advice.md has the comparison with training.

    Example:
        >>> found = CriticalBatch()
        >>> for step in range(1, 200):  # L = 5 - ln t
        ...     found.add(step, 5 - math.log(step), trace=6.0, signal=1.0)
        >>> found.add_sharpness(200, 4.0)
        >>> round(float(found.result()), 6)  # 2/4·6/1
        3.0
    """

    def __init__(self) -> None:
        self.step = 0.0
        self._slope, self._late = Slope(1), Slope(2)
        # from this loss others are counted: sums of large ones would cancel
        self._first: float | None = None
        self._noise = [0.0] * 4  # of w and w·trΣ, of trΣ and |G|²
        self._curvature = [0.0, 0.0]  # of w and w·(1 - m)λ/factor

    def add(self, step: float, loss: float, trace: float, signal: float) -> None:
        """Take the loss, trΣ and |G|² of a measured step; a loss that is not finite is left out.

        Args:
            step: t, how many steps the run has taken, from 1.
        """
        if step < 1:
            return
        self.step = step
        parts = (step, step * trace, trace, signal)
        self._noise = [s + part for s, part in zip(self._noise, parts, strict=True)]
        if math.isfinite(loss):
            self._first = loss if self._first is None else self._first
            for slope in (self._slope, self._late):
                slope.add(step, loss - self._first)

    def add_sharpness(
        self, step: float, sharpness: float, momentum: float = 0.0, factor: float = 1.0
    ) -> None:
        """Take λ of a step; one that is not positive is left out.

        Args:
            sharpness: λ, in the metric of an adaptive optimizer.
            momentum: m, or β₁.
            factor: tr(P⁻¹Σ)/trΣ; 1 without a metric.
        """
        own = (1 - momentum) * sharpness / factor
        if 0 < own < math.inf:
            self._curvature = [self._curvature[0] + step, self._curvature[1] + step * own]

    def fall(self) -> tuple[float, float, float]:
        """D = -dL/d ln t, and two ends that it lies between; nan before there are enough losses.

        Two standard errors, also of the slope where t weighs t²: of a curve that bends the two
        differ by more than their errors.
        """
        both = (self._slope.value(), self._late.value())
        known = [own for own in both if not math.isnan(own[0])]
        low = min((d - ERRORS * error for d, error in known), default=math.nan)
        return both[0][0], low, max((d + ERRORS * error for d, error in known), default=math.nan)

    @property
    def simple(self) -> float:
        """B_simple = Σ trΣ/Σ|G|² of the run, each step with weight 1; nan without a value."""
        *_, trace, signal = self._noise
        return trace / signal if trace > 0 and signal > 0 else math.nan

    def result(self, level: float = 0.95, ahead: float | None = None) -> Estimate:
        """B_crit in samples, of a run to this loss, or of the steps ahead.

        The interval reaches from half of the smaller one of `simple` and this, with a fall of the
        loss that is larger by two standard errors, to twice the larger one; by a factor 5 both ways
        from this one alone.

        Args:
            level: that the estimate carries; the interval is one of experience, not of sampling.
            ahead: n steps that are counted from here, over which the loss falls by D·n/(t + n) per
                e-fold of n; None for a run from its beginning to here.

        Returns:
            The estimate; without a value where the loss did not fall, without an interval before
            there are five losses or six and one λ.
        """
        (weight, curvature), (total, trace, *_) = self._curvature, self._noise
        if math.isnan(self.fall()[0]) or not (curvature > 0 and trace > 0):
            return Estimate(math.nan, 0.0, math.inf, level, math.nan, 0, Status.NO_INTERVAL)
        longer = 1.0 if ahead is None else 1 + self.step / ahead
        limit = longer * 2 * weight / curvature * trace / total  # ε_max·trΣ
        return of_fall(limit, self.fall(), self.simple, level, int(self._slope.count))

    def state_dict(self) -> dict[str, Any]:
        """Everything that `load_state_dict` goes on from, as built-in values."""
        return {
            "step": self.step,
            "first": self._first,
            "slope": list(self._slope.sums),
            "late": list(self._late.sums),
            "noise": list(self._noise),
            "curvature": list(self._curvature),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where another one was."""
        self.step, self._first = float(state["step"]), state["first"]
        self._slope.sums, self._late.sums = list(state["slope"]), list(state["late"])
        self._noise, self._curvature = list(state["noise"]), list(state["curvature"])


def of_fall(
    limit: float, fall: tuple[float, float, float], simple: float, level: float, samples: int
) -> Estimate:
    """B_crit = ε_max·trΣ/D with its interval; without a value where the loss did not fall.

    Args:
        limit: ε_max·trΣ.
        fall: D, and two ends that it lies between.
        simple: B_simple of the run; nan where it is not known.
        level, samples: that the estimate carries.
    """
    others, room = ([], ALONE) if math.isnan(simple) else ([simple], BOTH)
    low = min([_over(limit, fall[2]), *others]) / room
    if not fall[0] > 0:
        low = 0.0 if math.isinf(low) else low
        return Estimate(math.nan, low, math.inf, level, math.nan, samples, FLAT)
    high = max([_over(limit, fall[1]), *others]) * room
    return Estimate(limit / fall[0], low, high, level, math.nan, samples)


def _over(product: float, fall: float) -> float:
    return product / fall if fall > 0 else math.inf
