"""Three limits of the learning rate side by side, and what it means where they differ.

They are different statements (docs/theory/stability.md). Beyond the noise-scale rule a step gains
less than the best one, beyond the one-step limit the expected loss rises in a single step; good
runs often stand there. Beyond the mean-square limit SGD is unstable at this point. Units as in
`formulas`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ..errors import positive
from ..statistics.estimate import Estimate, Status, short
from ..statistics.transform import decreasing, monotone, scaled, undefined, unknown
from .formulas import capped, greedy_lr, max_lr, mean_square_lr, stable_lr
from .mean_square import CurvatureSpread
from .noise_floor import doubling_lr
from .update_rule import Momentum

APART = 2.0  # limits that differ by more than this factor are said to differ


@dataclass(frozen=True)
class Limits:
    """The limits of the learning rate at one batch size, all in parameter²/loss.

    They hold at the point that was measured: beyond them a run may move to where the loss is
    flatter. Formulas and sources: `gn.max_lr`, `gn.greedy_lr`, `gn.mean_square_lr`.

    Args:
        batch_size: B in samples.
        noise_scale_rule: (2/λ)/(1 + B_noise/B); beyond it a step gains less (Smith, Elsen and
            De 2020).
        one_step: 2ε_opt(B), divided by 1/(1 - m) where momentum adds gradients up; beyond it the
            expected loss rises by the total step for one gradient (McCandlish et al. 2018).
        mean_square: at most (2/λ)/(1 + (1/B - 1/N)·B_curv); beyond it the second moment of the
            weights grows from step to step at this point (Mulayoff and Michaeli 2024).

    Example:
        >>> import gradnoise as gn, torch
        >>> toy = gn.toy.NoisyQuadratic(torch.diag(torch.tensor([4.0, 1.0])), torch.ones(2))
        >>> limits = gn.profile(toy.model(), toy.loss_fn, toy.sample(256, seed=0)).limits(256)
        >>> round(float(limits.mean_square), 3)  # samples agree about the curvature: 2/λ
        0.5
    """

    batch_size: float
    noise_scale_rule: Estimate
    one_step: Estimate
    mean_square: Estimate

    @property
    def reading(self) -> str:
        """How the limits compare, in one sentence."""
        rule, square = self.noise_scale_rule, self.mean_square
        where = f"At B = {self.batch_size:g}"
        if Status.NEGATIVE_CURVATURE in (rule.status, square.status):
            return f"{where} there is no limit: the curvature is negative."
        if not (rule.is_resolved and square.is_resolved):
            if square.is_resolved:
                return (
                    f"{where}: unstable at this point beyond {short(float(square))}. How much "
                    f"noise slows training below that cannot be determined from these samples."
                )
            return f"{where} the limits cannot be compared: measure more samples."
        ratio = float(square) / float(rule) if float(rule) else math.inf
        if ratio > APART:
            return (
                f"{where}: beyond {short(float(rule))} (noise-scale rule) a step gains less; "
                f"beyond {short(float(square))}, {short(ratio)} times the rule, "
                f"training is unstable at this point."
            )
        if ratio < 1 / APART:
            return (
                f"{where}: unstable at this point beyond {short(float(square))}, "
                f"{short(1 / ratio)} times below the noise-scale rule, because the samples "
                f"disagree about the curvature."
            )
        return f"{where} the limits agree within a factor {short(max(ratio, 1 / ratio))}."


@dataclass(frozen=True)
class Landscape:
    """What limits a step at the present parameters, as functions of the batch size.

    A batch larger than the population is all of it: the mean-square limit takes it as N.

    Not the loss surface: the name is this library's. `p.landscape()` of a profile gives it.
    Sources: McCandlish et al. 2018 (arXiv:1812.06162) for `greedy_lr`, `steps`, `samples` and
    `speed`; Smith, Elsen and De 2020 (arXiv:2006.15081) for `max_lr`; Mulayoff and Michaeli 2024
    (arXiv:2306.07850) for `mean_square_lr`.

    Args:
        grad_sq_norm: |G|² in loss²/parameter².
        grad_curvature, trace_hessian_cov: GᵀHG, tr(HΣ) in loss³/parameter⁴.
        noise_scale, curvature_noise_scale: B_noise, B_curv in samples.
        sharpness: λ in loss/parameter².
        population: N in samples.
        spread: spread of the curvature in several directions, where it was measured.
        optimizer: whose formulas, as for `gn.stable_lr`.
        momentum: m, or β₁.
        loss, trace_cov: L and trΣ, where `doubling_lr` is wanted.
    """

    grad_sq_norm: Estimate
    grad_curvature: Estimate
    trace_hessian_cov: Estimate
    noise_scale: Estimate
    sharpness: Estimate
    curvature_noise_scale: Estimate
    population: float
    spread: CurvatureSpread | None = None
    optimizer: str = "sgd"
    momentum: float = 0.0
    loss: Estimate | None = None
    trace_cov: Estimate | None = None

    @property
    def stable_lr(self) -> Estimate:
        """The limit of full-batch descent, 2/λ without momentum."""
        return decreasing(
            lambda sharpness: stable_lr(sharpness, self.optimizer, self.momentum), self.sharpness
        )

    def max_lr(self, batch_size: float) -> Estimate:
        """The noise-scale rule, (2/λ)/(1 + B_noise/B) without momentum."""
        size = positive("batch_size", batch_size)
        return decreasing(
            lambda sharpness, scale: max_lr(sharpness, scale, size, self.optimizer, self.momentum),
            self.sharpness,
            self.noise_scale,
        )

    def greedy_lr(self, batch_size: float) -> Estimate:
        """ε_opt(B) = |G|²/(GᵀHG + tr(HΣ)/B), of a single step without momentum."""
        parts = self.grad_sq_norm, self.grad_curvature, self.trace_hessian_cov, self.noise_scale
        return _greedy(*parts, batch_size)

    def mean_square_lr(self, batch_size: float) -> Estimate:
        """The mean-square limit: that of the sharpest direction, times `spread.reduction`.

        Its low end is 0 where more directions than were measured may lower it.
        """
        size = capped(batch_size, self.population)
        alone = decreasing(
            lambda sharpness, scale: mean_square_lr(
                sharpness, scale, size, self.population, self.optimizer, self.momentum
            ),
            self.sharpness,
            self.curvature_noise_scale,
        )
        factor, spread = 1 / size - 1 / self.population, self.spread
        if spread is None:
            return alone
        if spread.directions > 1:
            alone = scaled(alone, spread.reduction(factor, self.optimizer, self.momentum))
        if spread.is_settled(factor, self.optimizer, self.momentum):
            return alone
        return replace(alone, low=0.0)

    def doubling_lr(self, batch_size: float) -> Estimate:
        """1/(1/ε* + p·trΣ/(4L(1 - m))): the noise of the steps would double the loss L beyond it.

        With the mean-square limit ε* and p = 1/B - 1/N. Trained runs of SGD kept their loss up to
        0.4 to 5 times it (docs/advice.md). Not resolved where the loss may be negative.
        """
        size, limit = capped(batch_size, self.population), self.mean_square_lr(batch_size)
        loss, noise = self.loss, self.trace_cov
        if loss is None or noise is None or not loss.low > 0:
            return unknown(limit.level, limit.samples, Status.SIGNAL_BELOW_NOISE)
        if limit.status is Status.NEGATIVE_CURVATURE:
            return limit
        share = 1 / size - 1 / self.population
        drift = Momentum.of(self.optimizer, self.momentum).drift
        value = doubling_lr(limit.value, loss.value, noise.value, share, drift)
        low = doubling_lr(limit.low, loss.low, noise.high, share, drift)
        high = doubling_lr(limit.high, loss.high, noise.low, share, drift)
        return Estimate(value, low, high, limit.level, math.nan, limit.samples, limit.status)

    def limits(self, batch_size: float) -> Limits:
        """The three limits at one batch size."""
        drift = Momentum.of(self.optimizer, self.momentum).drift
        size = capped(batch_size, self.population)
        return Limits(
            size,
            self.max_lr(size),
            scaled(self.greedy_lr(size), 2 / drift),
            self.mean_square_lr(size),
        )

    def noise_interaction(self, batch_size: float) -> Estimate:
        """The gradient-noise interaction E[g_BᵀHg_B]/|G|² = 1/ε_opt(B), in loss/parameter².

        The expected loss rises in a single step where ε exceeds 2 over it; no stability criterion.
        """
        return monotone(lambda lr: 1 / lr if lr else math.inf, self.greedy_lr(batch_size))

    def steps(self, batch_size: float) -> Estimate:
        """Steps of a run over the minimum for any batch size: S/S_min = 1 + B_noise/B."""
        size = positive("batch_size", batch_size)
        return monotone(lambda scale: 1 + scale / size, self.noise_scale)

    def samples(self, batch_size: float) -> Estimate:
        """Samples of a run over the minimum for any batch size: E/E_min = 1 + B/B_noise."""
        size = positive("batch_size", batch_size)
        return monotone(lambda scale: 1 + size / scale if scale else math.inf, self.noise_scale)

    def speed(self, lr: float, batch_size: float) -> float:
        """Expected decrease of the loss in one step over the largest possible one, ΔL/ΔL_max.

        (2x - x²)/(1 + B_noise/B) with x = ε/((1 - m) ε_opt(B)), ΔL_max for the full batch at
        x = 1; negative where the expected loss rises, nan where a part is not resolved.
        """
        drift = Momentum.of(self.optimizer, self.momentum).drift
        x = positive("lr", lr) * drift / float(self.greedy_lr(batch_size))
        return x * (2 - x) / float(self.steps(batch_size))


def _greedy(
    signal: Estimate, curvature: Estimate, trace: Estimate, scale: Estimate, batch_size: float
) -> Estimate:
    """ε_opt(B) = |G|²/(GᵀHG + tr(HΣ)/B) from |G|², GᵀHG, tr(HΣ) and their B_noise."""
    batch_size = positive("batch_size", batch_size)
    if scale.status is Status.NEGATIVE_CURVATURE:
        return undefined(scale)
    least = curvature.low + trace.low / batch_size
    most = curvature.high + trace.high / batch_size
    low = max(signal.low, 0.0) / most if most > 0 else 0.0
    high = signal.high / least if least > 0 and signal.high > 0 else math.inf
    value = math.nan
    if scale.is_resolved and float(signal) > 0:
        value = greedy_lr(float(signal), float(curvature), float(scale), batch_size)
        low, high = min(low, value), max(high, value)  # where all is exact, rounding can cross
    status = signal.status if not signal.is_resolved else scale.status
    return Estimate(value, low, high, signal.level, math.nan, signal.samples, status)
