"""What B_noise is made of, with its errors, and the estimates that follow."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import Tensor

from ...moments.moments import GradientMoments
from ...statistics.estimate import Estimate
from ...statistics.interval import flag_zero, pooled_freedom, with_skew
from ...statistics.ratio import ratio
from ...statistics.skew import Skew
from ...statistics.transform import all_in_samples


@dataclass(frozen=True, eq=False)
class Parts:
    """GᵀHG and tr(HΣ) parameter by parameter; uᵀHu is the sum over them of u_pᵀ(Hu)_p.

    Args:
        curvature: ḡ_pᵀ(Hḡ)_p less the part of noise (1/n - 1/N) tr((HΣ)_pp), shape (p,).
        traces: u_pᵀ(Hu)_p per probe, E = tr((HΣ)_pp), shape (K, p).
        complete: whether the probes are all there are.
    """

    curvature: Tensor
    traces: Tensor
    complete: bool


@dataclass(frozen=True)
class NoiseScale:
    """The two noise scales and what they are made of.

    Args:
        simple: B_simple = trΣ/|G|², in samples.
        hessian: B_noise = tr(HΣ)/GᵀHG, in samples.
        grad_sq_norm, trace_cov: |G|² and trΣ, in loss²/parameter².
        grad_curvature, trace_hessian_cov: GᵀHG and tr(HΣ), in loss³/parameter⁴.
        parts: the latter two parameter by parameter.

    Source: as for `noise_scale`.
    """

    simple: Estimate
    hessian: Estimate
    grad_sq_norm: Estimate
    trace_cov: Estimate
    grad_curvature: Estimate
    trace_hessian_cov: Estimate
    parts: Parts | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        return (
            f"B_simple {self.simple}, B_noise {self.hessian} (samples)\n"
            f"|G|² {self.grad_sq_norm}, trΣ {self.trace_cov}\n"
            f"GᵀHG {self.grad_curvature}, tr(HΣ) {self.trace_hessian_cov}"
        )

    def in_samples(self, group_size: int) -> NoiseScale:
        """The numbers of samples from those of groups; see `Unit`."""
        kept = ("grad_sq_norm", "grad_curvature")
        found = all_in_samples(vars(self), group_size, kept=kept)
        parts = self.parts and replace(self.parts, traces=group_size * self.parts.traces)
        return NoiseScale(**found, parts=parts)


@dataclass(frozen=True, eq=False)
class Sums:
    """tr(HΣ) and GᵀHG, unbiased, and where their errors come from.

    Args:
        trace, curvature: tr(HΣ) and GᵀHG.
        of_probes: variances of both that come from random vectors.
        of_samples: variances of both that come from the choice of samples, and their covariance.
        freedom: degrees of freedom of either source.
        skew: of both together.
        parts: by parameter.
    """

    trace: float
    curvature: float
    of_probes: tuple[float, float]
    of_samples: tuple[float, float, float]
    freedom: tuple[float, float]
    skew: Skew
    parts: Parts

    def scales(self, moments: GradientMoments, product_error: float) -> NoiseScale:
        """The estimates; every product with H errs by `product_error`, relative."""
        level, n, factor = moments.level, moments.count, moments.sampling_factor
        freedom = pooled_freedom(
            (self.of_probes[0], self.freedom[0]), (self.of_samples[0], self.freedom[1])
        )
        first, second = (
            probes + samples + (product_error * value) ** 2
            for probes, samples, value in zip(
                self.of_probes, self.of_samples[:2], (self.trace, self.curvature), strict=True
            )
        )
        size = float(moments.trace_cov)
        rounding = moments.rounding * abs(self.trace) / size if size else 0.0
        return NoiseScale(
            simple=moments.simple_noise_scale,
            hessian=ratio(
                self.trace,
                self.curvature,
                variances=(first, second + rounding**2),
                covariance=self.of_samples[2] - factor * self.of_probes[0],
                level=level,
                samples=n,
                freedom=freedom,
                skew=self.skew,
            ),
            grad_sq_norm=moments.grad_sq_norm,
            trace_cov=moments.trace_cov,
            grad_curvature=flag_zero(
                with_skew(
                    self.curvature, second, self.skew,
                    level=level, samples=n, freedom=self.freedom[1], part=1,
                )
            ),
            trace_hessian_cov=flag_zero(
                with_skew(self.trace, first, self.skew, level=level, samples=n, freedom=freedom)
            ),
            parts=self.parts,
        )  # fmt: skip
