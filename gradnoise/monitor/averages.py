"""Averages of trΣ and |G|² over the measured steps of a run, with the interval of their ratio."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..errors import ArgumentError
from ..estimators.from_arrays.result import SimpleNoiseScale
from ..statistics.estimate import Estimate, Status
from ..statistics.interval import flag_zero, with_skew
from ..statistics.quantile import quantile
from ..statistics.ratio import ratio
from ..statistics.skew import Skew

TRACE, SIGNAL = 0, 1
HERE: dict[str, Any] = {"dtype": torch.float64, "device": "cpu"}  # also with another default


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
        self._mean = torch.zeros(2, parts, **HERE)
        self._second = torch.zeros(2, 2, parts, **HERE)  # Σw(x - mean)(x - mean)ᵀ
        self._third = torch.zeros(2, 2, 2, parts, **HERE)

    def add(self, trace: Tensor, signal: Tensor, samples: float) -> None:
        """Take one measurement.

        Args:
            trace, signal: trΣ and |G|² of every part, shape (parts,).
            samples: B of the step.
        """
        values = torch.stack([trace, signal]).to(self._mean)
        old = self.decay * self._powers[0]
        self._powers = [1 + self.decay**k * own for k, own in enumerate(self._powers, 1)]
        total = self._powers[0]
        gap = values - self._mean
        square = torch.einsum("ap,bp->abp", gap, gap)
        second = self.decay * self._second
        mixed = torch.einsum("ap,bcp->abcp", gap, second)
        mixed = mixed + mixed.transpose(0, 1) + mixed.movedim(0, 2)
        cube = torch.einsum("abp,cp->abcp", square, gap)
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
        covariance, _ = self._spread(-1)
        (a, b), (first, second) = (trace, signal), self._mean[:, -1].tolist()
        variance = float(
            a * a * covariance[0, 0] + 2 * a * b * covariance[0, 1] + b * b * covariance[1, 1]
        )
        if math.isnan(variance):
            return False
        reach = quantile(level, max(self.effective - 1, 0.1)) * math.sqrt(max(variance, 0.0))
        return bool(a * first + b * second > reach)

    def result(self, level: float, part: int = -1) -> SimpleNoiseScale:
        """trΣ/|G|² of one part, the last by default; the ratio of the means, Fieller's interval."""
        if not self.count:
            return _nothing(level)
        values = self._mean[:, part].tolist()
        covariance, skew = self._spread(part)
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

    def _spread(self, part: int) -> tuple[Tensor, Skew]:
        """Covariance of the two means, and their skewness; nan from a single measurement."""
        first, second, third = self._powers
        effective = self.effective
        none = torch.zeros(2, 2, 2, **HERE)
        if self.count < 2:
            return torch.full((2, 2), math.nan, **HERE), Skew(none, none, none)
        covariance = self._second[..., part] / (first - second / first)
        if not covariance.any():  # one batch over and over: equal numbers do not tell the error
            return torch.full((2, 2), math.nan, **HERE), Skew(none, none, none)
        divisor = first - 3 * second / first + 2 * third / first**2
        if self.count < 3 or divisor <= 0:
            return covariance / effective, Skew(none, none, none)
        cumulant = self._third[..., part] / divisor
        skew = Skew(cumulant * third / first**3, cumulant / effective**2, none)
        return covariance / effective, skew

    def state_dict(self) -> dict[str, Any]:
        """Everything that `load_state_dict` goes on from, as built-in values."""
        return {
            "decay": self.decay,
            "count": self.count,
            "samples": self.samples,
            "powers": list(self._powers),
            **{name: getattr(self, f"_{name}").tolist() for name in _MOMENTS},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where another one was."""
        self.decay, self.count = float(state["decay"]), int(state["count"])
        self.samples, self._powers = float(state["samples"]), list(state["powers"])
        for name in _MOMENTS:
            setattr(self, f"_{name}", torch.tensor(state[name], **HERE))


_MOMENTS = ("mean", "second", "third")


def _nothing(level: float) -> SimpleNoiseScale:
    none = Estimate(math.nan, 0.0, math.inf, level, math.nan, 0, Status.NO_INTERVAL)
    return SimpleNoiseScale.of(none, none, none)
