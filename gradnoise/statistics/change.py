"""Whether a quantity changed from one measurement to another, beyond the errors of both."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from .estimate import Estimate, Status, short
from .quantile import quantile

ROSE, FELL, WITHIN, CANNOT_TELL = "rose", "fell", "within error", "cannot tell"
USELESS = (Status.NOT_CONVERGED, Status.NEGATIVE_CURVATURE, Status.NO_INTERVAL)


@dataclass(frozen=True)
class Change:
    """A quantity in two measurements.

    Args:
        first, second: the two estimates.
        change: second/first, or second - first where `is_ratio` is False; without a value where one
            of them has none.
        is_ratio: whether both are positive, so that a ratio has a meaning.
        verdict: "rose" or "fell" where the interval of the change excludes none; "within error"
            where both have a value and it does not; else "cannot tell".

    Example:
        >>> one, two = (Estimate(x, x, x, 0.95, 0.0, 100) for x in (2.0, 5.0))
        >>> print(find_change(one, two))
        2.50 times as large (exact)
    """

    first: Estimate
    second: Estimate
    change: Estimate
    is_ratio: bool
    verdict: str

    @property
    def changed(self) -> bool | None:
        """Whether it changed beyond its error; None where that cannot be told."""
        return None if self.verdict == CANNOT_TELL else self.verdict in (ROSE, FELL)

    @property
    def size(self) -> float:
        """How large the change is, to sort by: |log ratio|; ∞ for a difference that changed."""
        if not self.is_ratio:
            return math.inf if self.changed else 0.0
        known = self.change.value
        if math.isnan(known):  # the end nearer to no change
            known = self.change.low if self.verdict == ROSE else self.change.high
        return abs(math.log(known)) if 0 < known < math.inf else math.inf

    def to_dict(self) -> dict[str, Any]:
        """Built-in values except infinities and nan."""
        sides = {"first": self.first, "second": self.second, "change": self.change}
        own = {name: side.to_dict() for name, side in sides.items()}
        return {"verdict": self.verdict, "is_ratio": self.is_ratio, **own}

    def __str__(self) -> str:
        value, low, high = self.change.value, self.change.low, self.change.high
        interval = "exact" if self.change.is_exact else f"{short(low)} to {short(high)}"
        if self.is_ratio:
            if math.isnan(value):
                return f"{self.change.bounds_in_words()} times as large"
            return f"{short(value)} times as large ({interval})"
        if math.isnan(value):
            return f"a difference of {interval}"
        return f"{short(abs(value))} {'higher' if value >= 0 else 'lower'} ({interval})"


def find_change(
    first: Estimate,
    second: Estimate,
    *,
    level: float | None = None,
    independent: bool = False,
    signed: bool = False,
    rounding: float = 0.0,
) -> Change:
    """The ratio second/first, or their difference, with an interval.

    Positive quantities are compared by their logarithms, in which intervals of ratios are nearly
    symmetric. Independent errors: the margins of both are added in squares, each on its side, so
    that skewed intervals stay skewed (MOVER, Zou and Donner 2008, Statist. Med. 27). Else the
    margins are added: right for any correlation of the two errors, too wide for most.

    An estimate without a value gives its bounds, as intervals of the second over the first.

    Args:
        first, second: estimates of one quantity.
        level: coverage; the higher one of the two by default.
        independent: whether their errors are.
        signed: whether the quantity can be negative; then a difference where one may be.
        rounding: relative change that is none.
    """
    level = max(first.level, second.level) if level is None else level
    if 0.0 in (first.value, second.value):  # no ratio, also of what cannot be negative
        signed = True
    one, two = (_Margins.of(part, level, signed) for part in (first, second))
    is_ratio = not signed or (one.low > 0 and two.low > 0 and 0.0 not in (one.value, two.value))
    if is_ratio:
        one, two = one.mapped(_log), two.mapped(_log)
    gap = _minus(two, one, independent)
    sizes = [abs(end) for part in (one, two) for end in (part.low, part.value, part.high)]
    scale = 1.0 if is_ratio else max((s for s in sizes if math.isfinite(s)), default=0.0)
    verdict = _verdict(gap, rounding * scale, first, second)
    found = gap.mapped(_exp) if is_ratio else gap
    bad = next((part.status for part in (first, second) if not part.is_resolved), first.status)
    samples = min(first.samples, second.samples)
    change = Estimate(found.value, found.low, found.high, level, math.nan, samples, bad)
    return Change(first, second, change, is_ratio, verdict)


@dataclass(frozen=True)
class _Margins:
    """A value, perhaps nan, and the ends of its interval at the level that is wanted."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, part: Estimate, level: float, signed: bool) -> _Margins:
        value, low, high = part.value, part.low, part.high
        if not signed:  # the truth is not negative, whatever an unbiased estimate is
            low, high = max(low, 0.0), high if high > 0 else math.inf
            value = value if value > 0 else math.nan
        found = cls(value, low, high)
        if level == part.level or low == high:
            return found
        if math.isnan(value):  # a bound without a value has no margin to make longer
            least = -math.inf if signed else 0.0
            return found if level < part.level else cls(value, least, math.inf)
        factor = _factor(level, part)
        if low > 0 and not signed:
            return found.mapped(_log)._longer(factor).mapped(_exp)
        longer = found._longer(factor)
        return longer if signed else cls(value, max(longer.low, 0.0), longer.high)

    def _longer(self, factor: float) -> _Margins:
        low, high = (self.value + factor * (end - self.value) for end in (self.low, self.high))
        return _Margins(self.value, low, high)

    def mapped(self, function: Any) -> _Margins:
        return _Margins(*(function(number) for number in (self.value, self.low, self.high)))


def _factor(level: float, part: Estimate) -> float:
    """By how much margins grow from one level to another: the larger of Student's and Gauss'."""
    freedom = max(part.samples - 1.0, 1.0)
    return max(quantile(level, k) / quantile(part.level, k) for k in (freedom, math.inf))


def _verdict(gap: _Margins, room: float, first: Estimate, second: Estimate) -> str:
    both = (first, second)
    useless = any(part.status in USELESS or math.isinf(part.value) for part in both)
    if useless or math.isnan(gap.low) or math.isnan(gap.high):
        return CANNOT_TELL
    if gap.low > room:
        return ROSE
    if gap.high < -room:
        return FELL
    known = first.is_resolved and second.is_resolved and not math.isnan(gap.value)
    return WITHIN if known else CANNOT_TELL


def _minus(two: _Margins, one: _Margins, independent: bool) -> _Margins:
    """two - one."""
    value = two.value - one.value
    low, high = two.low - one.high, two.high - one.low
    ends = (one.low, one.high, two.low, two.high)
    if not independent or math.isnan(value) or not all(map(math.isfinite, ends)):
        return _Margins(value, low, high)
    down = math.hypot(two.value - two.low, one.high - one.value)
    up = math.hypot(two.high - two.value, one.value - one.low)
    return _Margins(value, value - down, value + up)


def _log(number: float) -> float:
    if math.isnan(number):
        return number
    return math.log(number) if number > 0 else -math.inf


def _exp(number: float) -> float:
    if math.isnan(number):
        return number
    return math.exp(number) if number < 700 else math.inf  # beyond, exp overflows
