"""A measured number with its interval.

Every result of the library is an `Estimate`. It says how far it can be trusted, and where the data
do not determine it, its status says so and what to do.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from ..errors import ArgumentError


class Status(Enum):
    """Whether an estimate is resolved, and if not, why; `remedy` says what to do."""

    RESOLVED = "resolved"
    NO_INTERVAL = "interval not measured"
    SIGNAL_BELOW_NOISE = "signal below noise"
    NOISE_BELOW_ERROR = "noise below its own error"
    NEGATIVE_CURVATURE = "negative curvature"
    NOT_CONVERGED = "not converged"
    NOT_SEPARATED = "not separated"
    BEYOND_GRID = "beyond the grid"
    NO_DESCENT = "no descent"
    NO_RISE = "no rise"

    @property
    def remedy(self) -> str:
        """What to do; empty for a resolved estimate."""
        return _REMEDIES[self]


_REMEDIES = {
    Status.RESOLVED: "",
    Status.NO_INTERVAL: (
        "ask for intervals (gn.profile, or `intervals=True`). Two samples or two groups have none, "
        "nor have samples with equal gradients: measure more of them, all of the data, or smaller "
        "groups (`group_size`)"
    ),
    Status.SIGNAL_BELOW_NOISE: (
        "not distinguishable from zero on these samples: measure more (`max_samples`, --samples)"
    ),
    Status.NOISE_BELOW_ERROR: (
        "the estimate of the noise is not above zero: use more `probes` or samples (`max_samples`)"
    ),
    Status.NEGATIVE_CURVATURE: (
        "undefined here: the curvature along the gradient or its noise is negative, so it does "
        "not limit the step; read GᵀHG and tr(HΣ), or measure later in training"
    ),
    Status.NOT_CONVERGED: "raise `tol`, or call gn.sharpness with more `max_iterations`",
    Status.NOT_SEPARATED: (
        "eigenvalues lie closer together here than the products can separate: use more `steps`, "
        "or ask for the share beyond a margin, such as .cumulative(-width)"
    ),
    Status.BEYOND_GRID: (
        "the runs do not determine it: widen the grid (`batch_sizes`, `lrs` or `factors`), or use "
        "more `seeds`"
    ),
    Status.NO_DESCENT: (
        "the loss does not fall here, however small the step is: measure again some steps later, "
        "or look at the learning rate, the momentum and the optimizer's settings (`maximize`)"
    ),
    Status.NO_RISE: (
        "the loss does not rise along the next step, so that it sets no limit: look at the size of "
        "the step and at the settings of the optimizer, or measure later in training"
    ),
}


@dataclass(frozen=True)
class Estimate:
    """A number, its interval, and whether both can be used.

    Value, ends and standard error are in the unit of the quantity, which its function states; how
    often the intervals cover the truth is in docs/statistics.md.

    Args:
        value: the point estimate; nan when `status` says that there is none.
        low, high: ends of the interval; `high = inf` when the data give only a lower bound.
        level: nominal coverage of the interval.
        stderr: standard error of the value; 0 when it is exact for its population, nan when
            the interval does not come from one (ratios) or was not measured.
        samples: number of samples it was measured on.
        status: whether the value is resolved, and if not, why.

    Example:
        >>> e = Estimate(3.0, 2.5, 3.5, 0.95, 0.25, 100)
        >>> float(e), f"{e:.1f}", str(e)  # a format is that of the value
        (3.0, '3.0', '3.00 [2.50, 3.50]')
    """

    value: float
    low: float
    high: float
    level: float
    stderr: float
    samples: int
    status: Status = Status.RESOLVED

    def __float__(self) -> float:
        return float(self.value)  # NumPy's numbers are no floats to every version of Python

    def __format__(self, spec: str) -> str:
        return format(float(self), spec) if spec else str(self)

    def __str__(self) -> str:
        if self.status is Status.NO_INTERVAL:
            return f"{short(self.value)} (no interval)"
        if self.is_exact:
            return f"{short(self.value)} (exact)"
        if math.isnan(self.value):
            return f"{self.bounds_in_words()} ({self.status.value})"
        flag = "" if self.is_resolved else f" ({self.status.value})"
        return f"{short(self.value)} [{short(self.low)}, {short(self.high)}]{flag}"

    @property
    def is_resolved(self) -> bool:
        """Whether the value can be used without reservation."""
        return self.status is Status.RESOLVED

    @property
    def is_exact(self) -> bool:
        """Whether it has no random error: the interval is the value."""
        return self.low == self.high == self.value

    def bounds_in_words(self, below: str = "at least ", above: str = "at most ") -> str:
        """The interval in words: "at least 1 200", "at most 3", "2 to 3", "unknown", "undefined".

        Args:
            below, above: what is put before a lower and an upper bound.
        """
        bounded_below, bounded_above = self.low > 0, math.isfinite(self.high)
        if bounded_below and bounded_above:
            return f"{short(self.low)} to {short(self.high)}"
        if bounded_below:
            return f"{below}{short(self.low)}"
        if bounded_above:
            return f"{above}{short(self.high)}"
        return "undefined" if self.status is Status.NEGATIVE_CURVATURE else "unknown"

    def to_dict(self) -> dict[str, Any]:
        """Built-in values, ready for JSON except infinities and nan."""
        return {**asdict(self), "status": self.status.value}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Estimate:
        """The estimate from what `to_dict` gave."""
        numbers = {
            name: float(fields[name]) for name in ("value", "low", "high", "level", "stderr")
        }
        samples, status = int(fields["samples"]), Status(fields["status"])
        return cls(**{**fields, **numbers, "samples": samples, "status": status})


def short(number: float) -> str:
    """Three significant digits, thousands separated by a space: 0.0123, 1 230, 4.50e-06, ∞."""
    if math.isnan(number):
        return "–"
    if math.isinf(number):
        return "∞" if number > 0 else "-∞"
    if number == 0:
        return "0"
    rounded = float(f"{number:.2e}")
    if not 1e-3 <= abs(rounded) < 1e6:
        return f"{number:.2e}"
    decimals = max(0, 2 - math.floor(math.log10(abs(rounded))))
    return f"{rounded:,.{decimals}f}".replace(",", " ")


def percent(level: float) -> str:
    """A coverage in words: 95%, 99.9%."""
    return f"{100 * level:.6g}%"


def check_level(level: float) -> None:
    """Raise ArgumentError unless `level` is a coverage, such as 0.95."""
    if not 0 < level < 1:
        raise ArgumentError(f"`level` is a coverage between 0 and 1, such as 0.95; got {level}")
