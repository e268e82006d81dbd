"""B_simple as an estimate, with its numerator and denominator."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from ...moments.moments import GradientMoments
from ...statistics.estimate import Estimate


@dataclass(frozen=True)
class SimpleNoiseScale(Estimate):
    """B_simple = trΣ/|G|² in samples: an `Estimate` with its two parts.

    Args:
        grad_sq_norm: |G|² in loss²/parameter², unbiased; its value can be negative.
        trace_cov: trΣ in loss²/parameter², unbiased.

    Source: McCandlish et al. 2018 (arXiv:1812.06162), eq. 2.9 and App. A.1.
    """

    grad_sq_norm: Estimate = field(kw_only=True)
    trace_cov: Estimate = field(kw_only=True)

    @classmethod
    def of(cls, scale: Estimate, signal: Estimate, trace: Estimate) -> SimpleNoiseScale:
        """From the ratio and its parts."""
        plain = {f.name: getattr(scale, f.name) for f in fields(Estimate)}
        return cls(**plain, grad_sq_norm=signal, trace_cov=trace)

    @classmethod
    def of_moments(cls, moments: GradientMoments) -> SimpleNoiseScale:
        """From moments."""
        return cls.of(moments.simple_noise_scale, moments.grad_sq_norm, moments.trace_cov)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, the parts as dictionaries of their own."""
        parts = {"grad_sq_norm": self.grad_sq_norm, "trace_cov": self.trace_cov}
        return {**super().to_dict(), **{name: part.to_dict() for name, part in parts.items()}}

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> SimpleNoiseScale:
        """The estimate that `to_dict` wrote."""
        parts = {name: Estimate.from_dict(saved[name]) for name in ("grad_sq_norm", "trace_cov")}
        plain = {f.name: saved[f.name] for f in fields(Estimate)}
        return cls.of(Estimate.from_dict(plain), parts["grad_sq_norm"], parts["trace_cov"])
