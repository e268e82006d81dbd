"""Averages of trΣ and |G|² over the measured steps of a run, with the interval of their ratio."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from ..errors import ArgumentError
from ..estimators.from_arrays.result import SimpleNoiseScale
from ..statistics.estimate import Estimate, Status
from ..statistics.interval import flag_zero, with_skew
from ..statistics.quantile import quantile
from ..statistics.ratio import ratio
from ..statistics.skew import Skew

TRACE, SIGNAL = 0, 1
Array = np.ndarray


class Averages:
    """Exponentially weighted means of pairs (trΣ, |G|²), one pair for every part of a model.

    A measurement that is k measurements old weighs β^k. Means are divided by the sum of the weights
    W, so that the first ones count in full. With the weighted moments about the mean,

        Var(mean) = C·Q/W²,   C = Σw(x - mean)(x - mean)ᵀ/(W - Q/W),   Q = Σw²

    for measurements that are independent draws; n* = W²/Q counts those that matter, and Student's t
    has n* - 1 degrees of freedom. Third moments correct the intervals for skewness (`Skew`).

    Args:
        decay: β, 0 < β ≤ 1; 1 is the plain mean of all.
        parts: how many pairs a measurement has.

    Raises:
        ArgumentError: a decay outside of (0, 1].
    """

    def __init__(self, decay: float, parts: int) -> None:
        if not 0 < decay <= 1:
            raise ArgumentError(f"`decay` must be above 0 and at most 1; got {decay!r}")
        self.decay = decay
        self.count = 0
        self.samples = 0.0  # the same average of the batch sizes
        self._powers = [0.0, 0.0, 0.0]  # Σw, Σw², Σw³
        # numpy: a step has a dozen operations on a few numbers, each of which costs torch more
        self._mean = np.zeros((2, parts))
        self._second = np.zeros((2, 2, parts))  # Σw(x - mean)(x - mean)ᵀ
        self._third = np.zeros((2, 2, 2, parts))

    def add(self, values: Array, samples: float) -> None:
        """Take one measurement.

        Args:
            values: trΣ and |G|² of every part, shape (2, parts).
            samples: B of the step.
        """
        old = self.decay * self._powers[0]
        self._powers = [1 + self.decay**k * own for k, own in enumerate(self._powers, 1)]
        total = self._powers[0]
        gap = values - self._mean
        square = gap[:, None] * gap
        second = self.decay * self._second
        mixed = gap[:, None, None] * second
        mixed = mixed + mixed.swapaxes(0, 1) + np.moveaxis(mixed, 0, 2)
        cube = square[:, :, None] * gap
        self._third = self.decay * self._third + cube * (old * (old - 1) / total**2) - mixed / total
        self._second = second + square * (old / total)
        self._mean = self._mean + gap / total
        self.samples += (samples - self.samples) / total
        self.count += 1

    @property
    def effective(self) -> float:
        """n* = (Σw)²/Σw²: as many measurements of equal weight have the same variance."""
        return self._powers[0] ** 2 / self._powers[1] if self.count else 0.0

    def is_surely_positive(self, trace: float, signal: float, level: float) -> bool:
        """Whether trace·trΣ + signal·|G|² of the whole is above its error; cheap."""
        if self.count < 2:
            return False
        first, second = self._mean[:, -1].tolist()
        value = trace * first + signal * second
        (aa, ab), (_, bb) = (self._covariance(-1) / self.effective).tolist()
        variance = trace * trace * aa + 2 * trace * signal * ab + signal * signal * bb
        if not value > 0 or math.isnan(variance):
            return False
        freedom = max(self.effective - 1, 0.1)
        return bool(value > quantile(level, freedom) * math.sqrt(max(variance, 0.0)))

    def result(self, level: float, part: int = -1) -> SimpleNoiseScale:
        """trΣ/|G|² of one part, the last by default; the ratio of the means, Fieller's interval."""
        if not self.count:
            return _nothing(level)
        values = self._mean[:, part].tolist()
        covariance, skew = self._covariance(part) / self.effective, self._skew(part)
        freedom = max(self.effective - 1, 0.1)  # fewer make Student's quantile overflow
        trace, signal = (
            flag_zero(
                with_skew(
                    values[k],
                    float(covariance[k, k]),
                    skew,
                    level=level,
                    samples=self.count,
                    freedom=freedom,
                    part=k,
                )
            )
            for k in (TRACE, SIGNAL)
        )
        scale = ratio(
            *values,
            variances=(float(covariance[0, 0]), float(covariance[1, 1])),
            covariance=float(covariance[0, 1]),
            level=level,
            samples=self.count,
            freedom=freedom,
            positive_denominator=True,
            skew=skew,
        )
        return SimpleNoiseScale.of(scale, signal, trace)

    def _covariance(self, part: int) -> Array:
        """C of one part, shape (2, 2); nan from a single measurement, or from equal ones."""
        first, second, _ = self._powers
        own = self._second[..., part]
        if self.count < 2 or not own.any():  # one batch over and over does not tell the error
            return np.full((2, 2), math.nan)
        covariance: Array = own / (first - second / first)
        return covariance

    def _skew(self, part: int) -> Skew:
        """The skewness of the two means; none where there are too few."""
        first, second, third = self._powers
        none = torch.zeros(2, 2, 2, dtype=torch.float64, device="cpu")
        divisor = first - 3 * second / first + 2 * third / first**2
        if self.count < 3 or divisor <= 0 or math.isnan(self._covariance(part)[0, 0]):
            return Skew(none, none, none)
        cumulant = torch.from_numpy(self._third[..., part] / divisor)
        return Skew(cumulant * third / first**3, cumulant / self.effective**2, none)

    def state_dict(self) -> dict[str, Any]:
        """Everything that `load_state_dict` goes on from, as built-in values."""
        return {
            "count": self.count,
            "samples": self.samples,
            "powers": list(self._powers),
            **{name: getattr(self, f"_{name}").tolist() for name in _MOMENTS},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where another one was, with the own decay."""
        self.count = int(state["count"])
        self.samples, self._powers = float(state["samples"]), list(state["powers"])
        for name in _MOMENTS:
            setattr(self, f"_{name}", np.array(state[name], np.float64))


_MOMENTS = ("mean", "second", "third")


def _nothing(level: float) -> SimpleNoiseScale:
    none = Estimate(math.nan, 0.0, math.inf, level, math.nan, 0, Status.NO_INTERVAL)
    return SimpleNoiseScale.of(none, none, none)
